/** Tests start the server that the embedded environment starts. */
export { type PostgresServer, startPostgres } from '../../infra/embedded/postgres';
