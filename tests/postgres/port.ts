export { freePort } from '../../infra/embedded/ports';
