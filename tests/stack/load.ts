/** What the tests of stacks put upon them: the load of `make load`. */
export * from '../../infra/load/figures';
export * from '../../infra/load/load';
