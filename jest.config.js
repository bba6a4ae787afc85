/** @type {import('jest').Config} */
module.exports = {
  testEnvironment: 'node',
  roots: [
    '<rootDir>/app',
    '<rootDir>/bench',
    '<rootDir>/infra',
    '<rootDir>/pipeline',
    '<rootDir>/ssl',
    '<rootDir>/tests',
  ],
  testMatch: ['**/*.test.ts'],
  transform: {
    '^.+\\.ts$': ['@swc/jest', { jsc: { target: 'es2022', parser: { syntax: 'typescript' } }, sourceMaps: 'inline' }],
  },
  coverageProvider: 'v8',
  collectCoverageFrom: ['app/**/*.ts', 'infra/**/*.ts', 'pipeline/**/*.ts', 'ssl/**/*.ts', '!**/*.test.ts'],
  coverageReporters: ['json'],
  globalSetup: '<rootDir>/tests/postgres/start.ts',
  globalTeardown: '<rootDir>/tests/postgres/stop.ts',
  setupFiles: ['<rootDir>/tests/coverage/children.js'],
  testTimeout: 20_000,
};
