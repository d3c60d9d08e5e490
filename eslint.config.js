'use strict';
const js = require('@eslint/js');
const globals = require('globals');
const tseslint = require('typescript-eslint');

// Imports point one way: codec <- ring <- transport <- session <- dispatcher <- client <- cli.
// Each layer lists the folders from which it must not import.
const aboveTap = ['transport', 'session', 'dispatcher', 'server', 'cli', 'client', 'index'];
const layers = {
  native: [
    'codec',
    'ring',
    'transport',
    'session',
    'dispatcher',
    'server',
    'tap',
    'bench',
    'cli',
    'client',
    'index',
  ],
  codec: [
    'native',
    'ring',
    'transport',
    'session',
    'dispatcher',
    'server',
    'tap',
    'bench',
    'cli',
    'client',
    'index',
  ],
  ring: ['transport', 'session', 'dispatcher', 'server', 'tap', 'bench', 'cli', 'client', 'index'],
  transport: ['session', 'dispatcher', 'server', 'tap', 'bench', 'cli', 'client', 'index'],
  session: ['dispatcher', 'server', 'tap', 'bench', 'cli', 'client', 'index'],
  dispatcher: ['server', 'tap', 'bench', 'cli', 'client', 'index'],
  server: ['session', 'dispatcher', 'tap', 'cli'],
  bench: ['server', 'tap', 'cli'],
  tap: aboveTap,
  'tap/decode': [...aboveTap, 'live', 'capture', 'timeline'],
  'tap/live': [...aboveTap, 'capture', 'timeline'],
  'tap/capture': [...aboveTap, 'live', 'timeline'],
  'tap/timeline': [...aboveTap, 'live', 'capture'],
};

const fromClock = 'take timers and clocks from src/clock.ts, which tests cannot replace';

module.exports = tseslint.config(
  { ignores: ['dist/', 'build/', 'coverage/', 'node_modules/', 'test/consumers/programs/'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { project: './tsconfig.json', tsconfigRootDir: __dirname } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      // The code has just checked these offsets and table look-ups.
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-invalid-void-type': 'off',
      // The reason of an AbortSignal is any value of the caller.
      '@typescript-eslint/prefer-promise-reject-errors': ['error', { allowThrowingUnknown: true }],
    },
  },
  ...Object.entries(layers).map(([layer, forbidden]) => ({
    files: [`src/${layer}/**/*.ts`],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: forbidden.map((name) => ({
            regex: `^(\\.\\./)+${name}(\\.js|/|$)`,
            message: `src/${layer} is below src/${name}: imports point one way (see ARCHITECTURE.md).`,
          })),
        },
      ],
    },
  })),
  {
    files: ['src/**/*.ts'],
    ignores: ['src/clock.ts'],
    rules: {
      'no-restricted-globals': [
        'error',
        ...['Timeout', 'Interval', 'Immediate']
          .flatMap((kind) => [`set${kind}`, `clear${kind}`])
          .concat('performance', 'queueMicrotask')
          .map((name) => ({ name, message: fromClock })),
      ],
      'no-restricted-syntax': [
        'error',
        ...[
          'ImportDeclaration[source.value=/^(node:)?(timers|timers\\u002fpromises|perf_hooks)$/]',
          "MemberExpression[object.name='process'][property.name=/^(nextTick|hrtime)$/]",
          "MemberExpression[object.name='Date'][property.name='now']",
          "NewExpression[callee.name='Date'][arguments.length=0]",
          'MemberExpression[object.name=/^(globalThis|global)$/][property.name=/^(set|clear)(Timeout|Interval|Immediate)$/]',
        ].map((selector) => ({ selector, message: fromClock })),
      ],
    },
  },
  {
    files: ['**/*.js', '**/*.mjs', '**/*.cjs'],
    languageOptions: { globals: globals.node },
  },
  { files: ['test/**/*.ts'], rules: { '@typescript-eslint/require-await': 'off' } },
);
