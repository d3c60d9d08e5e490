/** Text for people: visible control characters, and counts with their noun. */

// C0 and C1 controls, line separators and bidirectional marks: anything that could move the cursor, recolour the
// screen or make one name look like another. Also the two characters that XML forbids.
// eslint-disable-next-line no-control-regex -- they are what this looks for
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffe\uffff]/g;

const NAMED: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\0': '\\0' };

/** Replaces everything unsafe for a terminal by its name (\n, \t, ...) or by the result of `escape`. */
export function replaceUnsafe(text: string, escape: (character: string) => string): string {
  return text.replace(UNSAFE, (character) => NAMED[character] ?? escape(character));
}

/** Makes everything unsafe for a terminal visible: \n, \x1b, \u202e. */
export function visible(text: string): string {
  return replaceUnsafe(text, (character) => {
    const code = character.charCodeAt(0);
    return code < 0x100 ? `\\x${hex(code, 2)}` : jsonEscape(character);
  });
}

/** JSON text with everything unsafe for a terminal as \uNNNN: the same value to all who parse it. */
export function visibleJson(json: string): string {
  return json.replace(UNSAFE, jsonEscape);
}

/** `1 byte`, `2 bytes`. */
export function counted(count: number | bigint, singular: string, plural = `${singular}s`): string {
  return `${count} ${Number(count) === 1 ? singular : plural}`;
}

function jsonEscape(character: string): string {
  return `\\u${hex(character.charCodeAt(0), 4)}`;
}

function hex(code: number, digits: number): string {
  return code.toString(16).padStart(digits, '0');
}
