/** The subcommands, in the order in which help lists them. */
import type { Command } from '../command';
import { bench } from './bench';
import { completionCommand } from './completion';
import { decode } from './decode';
import { dissector } from './dissector';
import { groups } from './groups';
import { info } from './info';
import { join } from './join';
import { manualCommand } from './manual';
import { members } from './members';
import { replay } from './replay';
import { serve } from './serve';
import { tap } from './tap';
import { timeline } from './timeline';

export const commands: readonly Command[] = [
  join,
  members,
  groups,
  info,
  serve,
  tap,
  decode,
  replay,
  timeline,
  dissector,
  bench,
  completionCommand(() => commands),
  manualCommand(() => commands),
];
