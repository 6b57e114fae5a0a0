// An outside witness of a node: it asks over HTTP or IPC with code that wemixvisor has no part in.
//
//   witness.mjs ADDRESS call METHOD [PARAMS]    prints the result, as JSON; exit code 1 if there is no answer
//   witness.mjs ADDRESS upgrade OLD NEW HEIGHT  watches one upgrade and prints `ok WHAT` or `FAILED WHAT` for each claim
//
// ADDRESS is a URL or the path of a socket. Used by e2e-anvil; Node.js is there wherever npm is.

import net from 'node:net';

const [address, task, ...rest] = process.argv.slice(2);
const LIMIT = 120_000; // ms that an upgrade may take from when the witness arrives
const SLACK = 2;       // blocks after the height by which the switch has to be made

async function call(method, params = []) {
  const request = JSON.stringify({ jsonrpc: '2.0', id: 1, method, params });
  const answer = await (address.startsWith('/') ? overIpc(request) : overHttp(request));
  if (answer.error) throw new Error(`${method}: ${answer.error.message}`);
  return answer.result;
}

async function overHttp(body) {
  const headers = { 'content-type': 'application/json', connection: 'close' };
  const response = await fetch(address, { method: 'POST', headers, body, signal: AbortSignal.timeout(2000) });
  return response.json();
}

function overIpc(request) {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = net.connect(address, () => socket.write(request + '\n'));
    socket.setTimeout(2000, () => socket.destroy(new Error('no answer')));
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('closed')));
    socket.on('data', (data) => {
      text += data;
      if (!text.endsWith('\n') && !text.endsWith('}')) return;
      try { resolve(JSON.parse(text)); socket.end(); } catch { /* more is to come */ }
    });
  });
}

const block = async (at) => {
  const found = await call('eth_getBlockByNumber', [typeof at === 'number' ? `0x${at.toString(16)}` : at, false]);
  return found && { height: Number(found.number), hash: found.hash, parent: found.parentHash };
};

async function witnessUpgrade(older, newer, height) {
  const before = new Map(); // height → hash, as the old version told it
  let oldHead = -1, newHead = -1, stray = null, lastOld = 0, firstNew = 0;
  const end = Date.now() + LIMIT;
  while (Date.now() < end) {
    try {
      const version = await call('web3_clientVersion');
      const head = await block('latest');
      if (version === older && newHead < 0) {
        [oldHead, lastOld] = [head.height, Date.now()];
        before.set(head.height, head.hash);
      } else if (version === newer) {
        if (newHead < 0) [newHead, firstNew] = [head.height, Date.now()];
        if (head.height >= newHead + 3) break;
      } else {
        stray ??= version;
      }
    } catch { /* down, as between the two versions */ }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }

  const blocks = [];
  for (let at = 0; ; at++) {
    const found = await block(at).catch(() => null);
    if (!found) break;
    blocks.push(found);
  }
  const head = blocks.length - 1;
  const same = [...before].filter(([at, hash]) => blocks[at]?.hash === hash).length;
  const chained = blocks.every((b, at) => at === 0 || b.parent === blocks[at - 1].hash);
  const told = (good, what) => console.log(`${good ? 'ok' : 'FAILED'} ${what}`);
  told(newHead >= 0 && !stray, `${older} became ${newer}${stray ? `, and ${stray} was seen` : ''}`);
  told(newHead >= height, `nothing happened before the height ${height}: the old version was last seen at ${oldHead}, the new one first at ${newHead}`);
  told(oldHead <= height + SLACK && newHead <= height + SLACK, `the switch came at most ${SLACK} blocks after it`);
  told(newHead >= oldHead, `no block was lost: head ${oldHead} before, ${newHead} after`);
  told(before.size > 2 && same === before.size, `all ${before.size} blocks that the old version told have the same hash`);
  told(head > 0 && chained, `blocks 0 to ${head} are one chain`);
  told(head >= newHead + 3, 'the head goes on');
  console.log(`note no node answered for ${firstNew - lastOld} ms`);
}

if (task === 'call') {
  try {
    console.log(JSON.stringify(await call(rest[0], JSON.parse(rest[1] ?? '[]'))));
  } catch (error) {
    console.error(error.cause?.code ?? error.code ?? error.message);
    process.exitCode = 1;
  }
} else if (task === 'upgrade') {
  await witnessUpgrade(rest[0], rest[1], Number(rest[2]));
} else {
  console.error('usage: witness.mjs ADDRESS call METHOD [PARAMS] | upgrade OLD NEW HEIGHT');
  process.exitCode = 2;
}
