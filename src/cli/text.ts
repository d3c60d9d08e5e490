/** Text for help; what is shown of names and messages stands in ../tap/decode/text. */
export { counted, groupLabel, messageLabel, reasonLabel, visible } from '../tap/decode/text';

/** Text broken at spaces, for help. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  lines.push(line);
  return lines;
}
