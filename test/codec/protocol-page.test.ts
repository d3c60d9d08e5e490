/** docs/protocol.md against the codec, and against what a C compiler said: every id, offset and size on the page. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  EventId,
  FragmentType,
  Guarantee,
  HANDSHAKE_REQUEST_BYTES,
  HANDSHAKE_RESPONSE_BYTES,
  IterationType,
  Reason,
  RequestId,
  RESPONSE_BYTES,
  RESPONSE_ID_OF,
  ResponseId,
  type ResponseType,
} from '../../src/codec';
import { ADDRESS_BYTES } from '../../src/codec/addresses';
import { EVENT_SPANS } from '../../src/codec/events';
import { CPG_NAME_BYTES, type FieldSpan } from '../../src/codec/fields';
import { requestHeader, responseHeader } from '../../src/codec/header';
import { REQUEST_SPANS } from '../../src/codec/requests';
import { RESPONSE_SPANS } from '../../src/codec/responses';
import { Magic, RING_HEADER_BYTES, RingHeader } from '../../src/ring/layout';
import { loadLayout, type Layout } from '../support/fixtures';

const facts = loadLayout();
const page = readFileSync(join(__dirname, '../../docs/protocol.md'), 'utf8');

interface Row {
  /** Without the backticks that the fields of the codec have. */
  name: string;
  ofCodec: boolean;
  inC: string;
  offset: number;
  /** NaN for what is as long as it is. */
  bytes: number;
}

interface Section {
  name: string;
  /** What the heading says after the colon. */
  title: string;
  bytes: number;
  rows: Row[];
}

const cells = (line: string): string[] =>
  line
    .split('|')
    .slice(1, -1)
    .map((cell) => cell.trim());
const plain = (cell: string): string => cell.replaceAll('`', '');

/** Sections of one kind, which have one table each: their headings are like "#### `join` request: id 0, ...". */
function sections(kind: string): Section[] {
  const heading = new RegExp(`^#+ \`(\\w+)\` ${kind}: (.*)$`);
  return page.split(/\n(?=#)/).flatMap((text) => {
    const [first = '', ...lines] = text.split('\n');
    const [, name, title] = heading.exec(first) ?? [];
    if (name === undefined || title === undefined) return [];
    const table = lines.filter((line) => line.startsWith('|')).map(cells);
    const rows = table.filter((row) => row.length === 5).slice(2);
    return {
      name,
      title,
      bytes: Number(/(\d+) bytes/.exec(title)?.[1]),
      rows: rows.map(([field = '', inC = '', offset, bytes]) => ({
        name: plain(field),
        ofCodec: field.startsWith('`'),
        inC: plain(inC),
        offset: Number(offset),
        bytes: Number(bytes),
      })),
    };
  });
}

/** The table of names and values whose first column is called `title`. */
function values(title: string): Record<string, number> {
  const lines = page.split('\n').map(cells);
  const start = lines.findIndex(([first, second]) => first === title && second === 'value');
  const end = lines.findIndex((row, index) => index > start && row.length === 0);
  return Object.fromEntries(
    lines.slice(start + 2, end).map(([name = '', value]) => [plain(name), Number(value)]),
  );
}

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const names = (kind: string): string[] => sections(kind).map(({ name }) => name);

/** The rows of a section that C knows, as layout.json has them, and its size. */
function expectAsInC({ rows, bytes }: Section, { fields, size }: Layout): void {
  const described = rows.filter(({ inC }) => inC !== '');
  const asFields = described.map(({ inC, offset, bytes: length }) => [
    inC,
    { offset, size: Number.isNaN(length) ? 0 : length },
  ]);
  const ofC = Object.entries(fields).filter(([name]) => !name.startsWith('header.'));
  expect(Object.fromEntries(asFields)).toEqual(Object.fromEntries(ofC));
  expect(bytes).toBe(size);
}

/** The rows of a section that have the codec's names. */
function expectAsInCodec({ rows }: Section, headerBytes: number, spans: readonly FieldSpan[]): void {
  const described = rows.filter(({ ofCodec }) => ofCodec);
  expect(described.map(({ name, offset, bytes }) => ({ name, offset, length: bytes }))).toEqual(
    spans.filter(({ offset }) => offset >= headerBytes),
  );
  expect(rows.filter(({ name }) => name === 'header')).toMatchObject(
    headerBytes === 0 ? [] : [{ offset: 0, bytes: headerBytes }],
  );
}

describe('requests', () => {
  test('are all there', () => {
    const sent = Object.keys(RequestId).filter((name) => !name.startsWith('zeroCopy'));
    expect(names('request')).toEqual(['handshake', ...sent]);
  });

  test.each(sections('request').slice(1))('$name', (section) => {
    const { name, title } = section;
    const id = RequestId[name as keyof typeof RequestId];
    const headerBytes = /mcast$/i.test(name) ? responseHeader.size : requestHeader.size;
    expectAsInC(section, facts.requests[snake(name)]!);
    expectAsInCodec(section, headerBytes, REQUEST_SPANS[id]!());
    const reply = RESPONSE_ID_OF[id];
    expect(title).toMatch(new RegExp(`^id ${id}, ${reply === undefined ? 'no reply' : `reply ${reply}`}, `));
  });
});

describe('replies', () => {
  test('with fields are all there', () => {
    const withFields = Object.entries(ResponseId).filter(([, id]) => id in RESPONSE_SPANS);
    expect(names('reply')).toEqual(withFields.map(([name]) => name));
  });

  test.each(sections('reply'))('$name', (section) => {
    const { name, title, bytes } = section;
    const type = name as ResponseType;
    expectAsInC(section, facts.responses[snake(name)]!);
    expectAsInCodec(section, responseHeader.size, RESPONSE_SPANS[ResponseId[type]]!());
    expect(bytes).toBe(RESPONSE_BYTES[type]);
    expect(title).toMatch(new RegExp(`^id ${ResponseId[type]}, `));
  });
});

describe('events', () => {
  test('are all there', () => {
    expect(names('event')).toEqual(Object.keys(EventId));
  });

  test.each(sections('event'))('$name', (section) => {
    const { name, title } = section;
    const id = EventId[name as keyof typeof EventId];
    expectAsInC(section, facts.events[snake(name)]!);
    expectAsInCodec(section, responseHeader.size, EVENT_SPANS[id]!());
    expect(title).toMatch(new RegExp(`^id ${id}, `));
  });
});

describe('parts', () => {
  const [request, response, name, address] = sections('part');

  test('headers', () => {
    expectAsInC(request!, facts.installed['qb_ipc_request_header']!);
    expectAsInCodec(request!, 0, requestHeader.spans);
    expectAsInC(response!, facts.installed['qb_ipc_response_header']!);
    expectAsInCodec(response!, 0, responseHeader.spans);
  });

  test('names and addresses', () => {
    expectAsInC(name!, facts.parts['name']!);
    expect(name!.bytes).toBe(CPG_NAME_BYTES);
    expectAsInC(address!, facts.parts['address']!);
    expect(address!.bytes).toBe(ADDRESS_BYTES);
  });

  test('the handshake', () => {
    const [asked] = sections('request');
    const [answer] = sections('answer');
    expectAsInC(asked!, facts.parts['handshake_request']!);
    expect(asked!.bytes).toBe(HANDSHAKE_REQUEST_BYTES);
    expectAsInC(answer!, facts.parts['handshake_response']!);
    expect(answer!.bytes).toBe(HANDSHAKE_RESPONSE_BYTES);
  });

  test('the header file of a ring', () => {
    const [ring] = sections('header file');
    expect(Object.fromEntries(ring!.rows.map(({ name: field, offset }) => [field, offset]))).toEqual(
      RingHeader,
    );
    expect(ring!.bytes).toBe(RING_HEADER_BYTES);
    expect(ring!.rows.find(({ inC }) => inC === 'posix_sem')!.bytes).toBe(facts.installed['sem_t']!.size);
  });
});

test.each(
  Object.entries({
    reason: Reason,
    guarantee: Guarantee,
    iterationType: IterationType,
    fragmentType: FragmentType,
    magic: Magic,
  }),
)('the values of %s', (title, table) => {
  expect(values(title)).toEqual(table);
});

test('links within the page have a target', () => {
  const anchors = [...page.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  );
  for (const [, anchor] of page.matchAll(/\]\(#([^)]+)\)/g)) expect(anchors).toContain(anchor);
});
