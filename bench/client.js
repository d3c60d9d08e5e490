'use strict';
// Our side of the benchmarks: the same jobs as libcpg.c, through this package. See there for the modes.
const { connect } = require('../dist/index.js');

const [mode, group, sizeText, countText, address = '@cpg', optionsText = '{}'] = process.argv.slice(2);
const size = Number(sizeText);
const count = Number(countText);
const options = { address, ...JSON.parse(optionsText) };

let received = 0;
let wrong = 0;
let lowChecksum = 0;

const micros = (usage) => usage.user + usage.system;

async function main() {
  if (mode === 'idle') {
    const before = process.memoryUsage().rss;
    for (let index = 0; index < size; index++) {
      const client = await connect(options);
      client.on('deliver', () => undefined);
      await client.join(`${group}-${index}`);
    }
    console.log(JSON.stringify({ rssBytesPerConnection: (process.memoryUsage().rss - before) / size }));
    process.stdin.on('end', () => process.exit(0)).resume();
    return;
  }
  const client = await connect(options);
  const joined = new Promise((resolve) => client.once('confchg', resolve));
  let onMessage = () => undefined;
  client.on('deliver', ({ message }) => {
    const number = message.readUInt32LE(0);
    if (number !== received) wrong++;
    lowChecksum = (Math.imul(lowChecksum, 31) + number) >>> 0;
    received++;
    onMessage();
  });
  await client.join(group);
  await joined;
  const complete = () =>
    new Promise((resolve) => {
      onMessage = () => {
        if (received === count) resolve();
      };
      onMessage();
    });
  const result = { received: 0, wrong: 0 };
  const finish = async () => {
    Object.assign(result, { received, wrong, checksum: String(lowChecksum) });
    console.log(JSON.stringify(result));
    await client.close();
  };

  if (mode === 'receive') {
    console.log('ready');
    let begin, beginCpu;
    await new Promise((resolve) => {
      onMessage = () => {
        if (received === 1) [begin, beginCpu] = [performance.now(), process.cpuUsage()];
        if (received === count) resolve();
      };
    });
    result.cpuMicrosPerMessage = micros(process.cpuUsage(beginCpu)) / count;
    result.seconds = (performance.now() - begin) / 1000;
    return finish();
  }

  const message = Buffer.alloc(size);
  const begin = performance.now();
  const beginCpu = process.cpuUsage();
  if (mode === 'flood') {
    const done = complete();
    for (let number = 0; number < count; number++) {
      message.writeUInt32LE(number, 0);
      while (!client.tryMcast(message)) await new Promise((resolve) => client.once('drain', resolve));
    }
    await done;
    result.seconds = (performance.now() - begin) / 1000;
    result.messagesPerSecond = count / result.seconds;
  } else {
    const times = new Float64Array(count);
    for (let number = 0; number < count; number++) {
      const sent = performance.now();
      message.writeUInt32LE(number, 0);
      await new Promise((resolve) => {
        onMessage = resolve;
        client.tryMcast(message);
      });
      times[number] = (performance.now() - sent) * 1000;
    }
    times.sort();
    for (const percent of [50, 90, 99]) result[`p${percent}`] = times[Math.floor((count * percent) / 100)];
  }
  result.cpuMicrosPerMessage = micros(process.cpuUsage(beginCpu)) / count;
  return finish();
}

void main();
