import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { CpgError } from '../../errors';
import { dataOptions, defineCommand } from '../command';
import { jsonLine } from '../json';

export const dissector = defineCommand({
  name: 'dissector',
  summary: 'print the path of the Wireshark dissector',
  description: [
    'Prints the path of the Lua dissector for captures of "cpg tap --write". Copy or link it into the plugin directory of Wireshark (Help, About, Folders), or name it on the command line of tshark or wireshark.',
  ],
  common: dataOptions,
  examples: [
    { command: 'wireshark -X lua_script:"$(cpg dissector)" trace.pcapng', meaning: 'Open a capture.' },
    {
      command: 'ln -s "$(cpg dissector)" ~/.local/lib/wireshark/plugins/',
      meaning: 'Install it permanently.',
    },
  ],
  run: async ({ out }, { json }) => {
    const path = join(__dirname, '..', '..', '..', 'dissector', 'qbcpg.lua');
    if (!existsSync(path)) {
      throw new CpgError('CS_ERR_NOT_EXIST', `${path} is missing`, { remedy: 'install the package again' });
    }
    await out.line(json ? jsonLine({ type: 'dissector', path }) : path);
  },
});
