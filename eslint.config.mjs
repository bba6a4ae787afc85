import tseslint from 'typescript-eslint';

const layer = (files, forbidden) => ({
  files,
  rules: {
    'no-restricted-imports': ['error', { patterns: forbidden.map(([regex, message]) => ({ regex, message })) }],
  },
});
const noInfra = ['/(infra|ssl)/', 'app never imports infra'];

// The layers of docs/ARCHITECTURE.md: domain <- db, http <- service <- main; infra sees two files of app, app sees no infra.
export default tseslint.config(
  {
    ignores: [
      'node_modules',
      'dist',
      'coverage/**',
      '.pulumi',
      '.local',
      '**/*.mjs',
      '**/*.js',
      '!app/http/browser/*.js',
    ],
  },
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      'no-console': 'error',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/only-throw-error': ['error', { allow: ['Problem'] }],
    },
  },
  {
    files: [
      ...['**/main.ts', 'infra/operator.ts', 'infra/lock.ts', 'infra/repair.ts', 'infra/settings.ts', 'infra/verbs/**'],
      ...['infra/embedded/**', 'infra/deploy/**', 'pipeline/**', 'ssl/*.ts', 'tests/**'],
    ],
    rules: { 'no-console': 'off' },
  },
  {
    files: ['**/*.test.ts', 'tests/**'],
    rules: {
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
    },
  },
  // A later entry replaces an earlier one for the same file, so each names all that its files may not import.
  layer(['app/**'], [noInfra]),
  layer(['app/db/**'], [noInfra, ['/(http|service|main)(/|$)', 'db knows only domain, config and telemetry']]),
  layer(['app/sre/**'], [noInfra, ['/(http|service|main)(/|$)', 'sre finds figures; http shows them']]),
  layer(['app/http/**'], [noInfra, ['/(service|main)$', 'http is composed by service, not the other way round']]),
  layer(
    ['app/domain/**'],
    [
      noInfra,
      ['^node:(?!assert)|/(db|http|telemetry|config|service)(/|$)', 'domain does no I/O and knows no other layer'],
    ],
  ),
  layer(
    ['infra/**'],
    [['app/(?!config$|telemetry/names$)', 'infra imports only the two seams: app/config and app/telemetry/names']],
  ),
);
