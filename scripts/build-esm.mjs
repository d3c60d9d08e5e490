// Builds the same sources as ES modules in dist/esm, beside the CommonJS that tsc has built in dist/. The types are
// those of dist/, so a CpgClient is one type, whichever way it was imported.
//
// Node refuses the ES modules that tsc alone would build: relative imports have no extension, and there is no
// __filename. This script corrects both.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const SOURCE = join(ROOT, 'src');
const TARGET = join(ROOT, 'dist/esm');

/** In a CommonJS bundle import.meta does not exist. */
const FILE_NAME = "(typeof __filename === 'string' ? __filename : import.meta.url)";

const { exports } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
const entries = Object.values(exports)
  .map((conditions) => conditions.import?.default)
  .filter((path) => path !== undefined)
  .map((path) => join(SOURCE, relative('dist/esm', path)).replace(/\.js$/, '.ts'));

const { options } = ts.parseJsonConfigFileContent(
  ts.readConfigFile(join(ROOT, 'tsconfig.build.json'), ts.sys.readFile).config,
  ts.sys,
  ROOT,
);
const compilerOptions = { ...options, module: ts.ModuleKind.ESNext, moduleResolution: undefined };

const write = (path, text) => {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
};

/** The file to which `specifier` refers in `from`. */
function resolve(from, specifier) {
  const path = join(dirname(from), specifier);
  const found = [`${path}.ts`, join(path, 'index.ts')].find((candidate) => existsSync(candidate));
  if (found === undefined) throw new Error(`${from}: there is no ${specifier}`);
  return found;
}

/** Adds the extension to relative imports, and passes the imported files to `onImport`. */
const withExtensions = (file, onImport) => (context) => (source) => {
  const { factory } = context;
  const renamed = (literal) => {
    if (!literal.text.startsWith('.')) return literal;
    const found = resolve(file, literal.text);
    onImport(found);
    const path = relative(dirname(file), found).replace(/\.ts$/, '.js');
    return factory.createStringLiteral(path.startsWith('.') ? path : `./${path}`, true);
  };
  const visit = (node) => {
    if (ts.isImportDeclaration(node)) {
      const { modifiers, importClause, moduleSpecifier, attributes } = node;
      return factory.updateImportDeclaration(
        node,
        modifiers,
        importClause,
        renamed(moduleSpecifier),
        attributes,
      );
    }
    if (ts.isExportDeclaration(node) && node.moduleSpecifier !== undefined) {
      const { modifiers, isTypeOnly, exportClause, moduleSpecifier, attributes } = node;
      const path = renamed(moduleSpecifier);
      return factory.updateExportDeclaration(node, modifiers, isTypeOnly, exportClause, path, attributes);
    }
    if (ts.isIdentifier(node)) {
      if (node.text === '__filename') return factory.createIdentifier(FILE_NAME);
      if (node.text === '__dirname' || node.text === 'require')
        throw new Error(`${file}: ES modules have no ${node.text}; use createRequire(__filename)`);
    }
    return ts.visitEachChild(node, visit, context);
  };
  return ts.visitNode(source, visit);
};

const done = new Set();
function build(file) {
  if (done.has(file)) return;
  done.add(file);
  const imported = new Set();
  const { outputText, sourceMapText } = ts.transpileModule(readFileSync(file, 'utf8'), {
    fileName: file,
    compilerOptions,
    // After tsc has removed the types and their imports.
    transformers: { after: [withExtensions(file, (found) => imported.add(found))] },
  });
  const target = join(TARGET, relative(SOURCE, file)).replace(/\.ts$/, '.js');
  const map = JSON.parse(sourceMapText);
  map.sources = [relative(dirname(target), file)];
  write(target, outputText);
  write(`${target}.map`, JSON.stringify(map));
  for (const other of imported) build(other);
}

write(join(TARGET, 'package.json'), '{ "type": "module" }\n');
for (const entry of entries) {
  build(entry);
  const types = join(TARGET, relative(SOURCE, entry)).replace(/\.ts$/, '.d.ts');
  const own = join(ROOT, 'dist', relative(SOURCE, entry)).replace(/\.ts$/, '.js');
  write(types, `export * from '${relative(dirname(types), own)}';\n`);
}
