// BullMQ, set up for speed as its guide says: `worker URL` or `drive URL COUNT LATENCIES`.
const { Queue, QueueEvents, Worker } = require('bullmq');

const CONCURRENCY = 100, BATCH = 1000, ADDERS = 2, WARM_UP = 0.25;
const [role, address, count, latencies] = process.argv.slice(2);
const url = new URL(address);
const connection = {
  host: url.hostname, port: Number(url.port), db: Number(url.pathname.slice(1)), maxRetriesPerRequest: null,
};

async function run(queue, count) {
  let begin = 0;
  const start = process.hrtime.bigint();
  const add = async () => {
    while (begin < count) {
      const size = Math.min(BATCH, count - begin);
      begin += size;
      await queue.addBulk(Array.from({ length: size }, () => ({ name: 'noop', data: {} })));
    }
  };
  await Promise.all(Array.from({ length: ADDERS }, add));
  for (;;) {
    const { waiting, active } = await queue.getJobCounts('waiting', 'active');
    if (waiting + active === 0) break;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  return Number(process.hrtime.bigint() - start) / 1e9;
}

async function drive() {
  const queue = new Queue('bench', { connection, defaultJobOptions: { removeOnComplete: 1000 } });
  const events = new QueueEvents('bench', { connection });
  await events.waitUntilReady();
  await run(queue, Math.ceil(Number(count) * WARM_UP)); // V8 compiles what runs often
  // Ready is before it reads: an event of now would be missed, and waited for in vain.
  await new Promise((resolve) => setTimeout(resolve, 300));
  const tookS = [];
  for (let i = 0; i < Number(latencies); i++) {
    const start = process.hrtime.bigint();
    const job = await queue.add('noop', {});
    await job.waitUntilFinished(events, 5000);
    tookS.push(Number(process.hrtime.bigint() - start) / 1e9);
    await new Promise((resolve) => setTimeout(resolve, 3));
  }
  await events.close(); // it would read each task's events beside the tasks
  const seconds = await run(queue, Number(count));
  console.log(JSON.stringify({ perS: Number(count) / seconds, tookS }));
  process.exit(0);
}

if (role === 'worker') {
  new Worker('bench', async () => {}, { connection, concurrency: CONCURRENCY });
  console.log('ready');
} else {
  drive();
}
