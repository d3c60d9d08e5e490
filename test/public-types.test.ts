/** The compiler's view of the entry points: everything public is documented, and user code compiles. */
import path from 'node:path';
import ts from 'typescript';
import { Reason, type CpgAddress, type CpgClient, type CpgEvent } from '../src';
import type { ClusterNode, CpgServer, SimulatedCluster } from '../src/server';

const ROOT = path.join(__dirname, '..');
const ENTRY_POINTS = ['src/index.ts', 'src/codec/index.ts', 'src/server/index.ts', 'src/tap/index.ts'];

const program = ts.createProgram(
  ENTRY_POINTS.map((file) => path.join(ROOT, file)),
  { strict: true, target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.Node16, types: ['node'] },
);
const checker = program.getTypeChecker();

const documentation = (symbol: ts.Symbol): string =>
  ts.displayPartsToString(symbol.getDocumentationComment(checker));
const hasDefault = (symbol: ts.Symbol): boolean =>
  symbol.getJsDocTags(checker).some(({ name }) => name === 'default');
const isOptional = (symbol: ts.Symbol): boolean => (symbol.flags & ts.SymbolFlags.Optional) !== 0;

/** Fields and methods that are declared here, and public. */
function membersOf(symbol: ts.Symbol): ts.Symbol[] {
  return [...(symbol.members?.values() ?? []), ...(symbol.exports?.values() ?? [])].filter(
    ({ name, declarations = [] }) =>
      !name.startsWith('__') &&
      name !== 'prototype' &&
      declarations.some(
        (declaration) =>
          (ts.isPropertySignature(declaration) ||
            ts.isMethodSignature(declaration) ||
            ts.isPropertyDeclaration(declaration) ||
            ts.isMethodDeclaration(declaration) ||
            ts.isGetAccessor(declaration)) &&
          !ts.isPrivateIdentifier(declaration.name) &&
          // Their documentation is that of the interface they stand for.
          !ts.isComputedPropertyName(declaration.name) &&
          (ts.getCombinedModifierFlags(declaration) & ts.ModifierFlags.Override) === 0,
      ),
  );
}

describe.each(ENTRY_POINTS)('%s', (file) => {
  const module = checker.getSymbolAtLocation(program.getSourceFile(path.join(ROOT, file))!)!;
  const exported = checker
    .getExportsOfModule(module)
    .map((symbol) =>
      (symbol.flags & ts.SymbolFlags.Alias) === 0 ? symbol : checker.getAliasedSymbol(symbol),
    );

  test('every symbol and every member of it has a docstring', () => {
    const silent = exported.flatMap((symbol) => [
      ...(documentation(symbol) === '' ? [symbol.name] : []),
      ...membersOf(symbol)
        .filter((member) => documentation(member) === '')
        .map((member) => `${symbol.name}.${member.name}`),
    ]);
    expect(silent).toEqual([]);
  });

  test('every option says its default', () => {
    const options = exported.filter(({ name }) => name.endsWith('Options')).flatMap(membersOf);
    const silent = options.filter((option) => isOptional(option) && !hasDefault(option));
    expect(silent.map(({ name }) => name)).toEqual([]);
  });

  test('optional properties may be undefined, even with exactOptionalPropertyTypes', () => {
    const strict = exported.flatMap(membersOf).filter(({ valueDeclaration: member }) => {
      if (member === undefined || !ts.isPropertySignature(member) || member.questionToken === undefined)
        return false;
      return !/(\| undefined|unknown)$/.test(member.type!.getText());
    });
    expect(strict.map(({ name }) => name)).toEqual([]);
  });
});

// The compiler checks these; ts-jest, and `npm run typecheck`, fail where an error is missing or unexpected.

test('the classes behind connect(), startServer() and start() cannot be constructed', () => {
  type CanBeMade<Class> = Class extends new (...args: never[]) => unknown ? true : false;
  const classes: [
    CanBeMade<typeof CpgClient>,
    CanBeMade<typeof CpgServer>,
    CanBeMade<typeof ClusterNode>,
    CanBeMade<typeof SimulatedCluster>,
  ] = [false, false, false, false];
  expect(classes).not.toContain(true);
});

test('events are one union, and reasons are known numbers', () => {
  const describe = (event: CpgEvent): string => {
    switch (event.type) {
      case 'deliver':
        return `${event.own} ${event.message.readUInt8(0)}`;
      case 'confchg':
        return event.joined.map(why).join();
      case 'totemConfchg':
        return event.ringId.seq.toString();
    }
  };
  const why = ({ reason }: CpgAddress): string => {
    switch (reason) {
      case Reason.UNDEFINED:
      case Reason.JOIN:
      case Reason.LEAVE:
      case 3:
      case 4:
      case 5:
        return `${reason}`;
    }
  };
  const group = { group: 'g', groupBytes: Buffer.from('g') };
  const joined: CpgAddress[] = [{ nodeId: 1, pid: 2, reason: Reason.NODEUP }];
  expect(describe({ type: 'confchg', ...group, members: [], left: [], joined })).toBe('4');
  // @ts-expect-error -- there is no such reason
  joined[0]!.reason = 6;
});
