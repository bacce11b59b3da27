// ioredis against the server that test_node_clients.py has started: its RESP port and password are in the environment.

import assert from "node:assert/strict";
import { once } from "node:events";
import { afterEach, beforeEach, describe, test } from "node:test";
import { Redis } from "ioredis";

const port = Number(process.env.PINION_TEST_RESP_PORT);
const password = process.env.PINION_TEST_PASSWORD;
assert.ok(port > 0, "test_node_clients.py runs this");

for (const protocol of [2, 3]) {
  describe(`RESP${protocol}`, () => {
    const made = [];
    let client;

    function connect(settings = {}) {
      // A test that gets no answer shall fail, and not be tried again.
      const client = new Redis({
        host: "127.0.0.1", port, password, protocol, retryStrategy: null, maxRetriesPerRequest: 0, commandTimeout: 30_000,
        ...settings,
      });
      client.failures = [];
      client.on("error", (error) => client.failures.push(error));
      made.push(client);
      return client;
    }

    beforeEach(async () => {
      client = connect();
      await client.flushall();
    });

    afterEach(() => made.splice(0).forEach((client) => client.disconnect()));

    test("the connect sequence: HELLO or AUTH, SELECT, names, and INFO until it is not loading", async () => {
      const named = connect({ connectionName: "tester", db: 5 });
      await once(named, "ready");
      const info = await named.client("INFO");
      for (const part of ["name=tester", "db=5", `resp=${protocol}`, "lib-name=ioredis"]) {
        assert.ok(info.includes(` ${part} `) || info.includes(` ${part}`), `${part}: ${info}`);
      }
      assert.equal(named.serverInfo?.loading ?? "0", "0");
      assert.deepEqual(named.failures, []);
    });

    test("a wrong password, and none", async () => {
      for (const wrong of ["wrong", undefined]) {
        const refused = connect({ password: wrong });
        await assert.rejects(refused.get("k"), /WRONGPASS|NOAUTH|Connection is closed/);
        refused.disconnect();
      }
      assert.equal(await client.ping(), "PONG");
    });

    test("strings", async () => {
      assert.equal(await client.set("k", "v", "EX", 100), "OK");
      assert.equal(await client.get("k"), "v");
      assert.ok((await client.ttl("k")) > 90);
      assert.equal(await client.set("k", "w", "NX"), null);
      assert.equal(await client.get("nothing"), null);
      assert.deepEqual([await client.incr("n"), await client.incrby("n", 5), await client.decr("n")], [1, 6, 5]);
      assert.deepEqual(await client.mget("k", "nothing", "n"), ["v", null, "5"]);
      assert.equal(await client.exists("k", "n", "nothing"), 2);
      assert.equal(await client.del("k", "n"), 2);
    });

    test("collections, in the shapes that ioredis gives them", async () => {
      assert.equal(await client.hset("h", { a: 1, b: "two" }), 2);
      assert.deepEqual({ ...(await client.hgetall("h")) }, { a: "1", b: "two" });
      assert.deepEqual({ ...(await client.hgetall("nothing")) }, {});
      assert.deepEqual(await client.hmget("h", "b", "c"), ["two", null]);
      assert.equal(await client.rpush("l", 1, 2, 3), 3);
      assert.deepEqual(await client.lrange("l", 0, -1), ["1", "2", "3"]);
      assert.deepEqual(await client.lpop("l", 2), ["1", "2"]);
      assert.equal(await client.sadd("s", "a", "b", "a"), 2);
      assert.deepEqual([...(await client.smembers("s"))].sort(), ["a", "b"]);
      assert.equal(await client.zadd("z", 1.5, "a", 2, "b"), 2);
      assert.deepEqual((await client.zrange("z", 0, -1, "WITHSCORES")).flat().map(String), ["a", "1.5", "b", "2"]);
      assert.equal(Number(await client.zscore("z", "a")), 1.5);
    });

    test("bytes of every kind, 5 MB of them", async () => {
      const big = Buffer.alloc(5 * 1024 * 1024, Buffer.from(Array.from({ length: 256 }, (_, n) => n)));
      assert.equal(await client.set("big", big), "OK");
      assert.ok((await client.getBuffer("big")).equals(big));
      assert.equal(await client.strlen("big"), big.length);
    });

    test("a pipeline of thousands keeps its order, and errors are of their commands", async () => {
      const pipeline = client.pipeline();
      for (let n = 0; n < 5000; n++) pipeline.set(`k${n % 100}`, n).get(`k${n % 100}`).rpush("l", n);
      pipeline.get("l").ping();
      const replies = await pipeline.exec();
      assert.equal(replies.length, 15_002);
      for (let n = 0; n < 5000; n++) {
        assert.deepEqual(replies.slice(3 * n, 3 * n + 3), [[null, "OK"], [null, String(n)], [null, n + 1]]);
      }
      assert.match(replies[15_000][0].message, /^WRONGTYPE/);
      assert.deepEqual(replies[15_001], [null, "PONG"]);
    });

    test("commands that are sent at once without a pipeline, automatically pipelined or not", async () => {
      for (const enableAutoPipelining of [false, true]) {
        const many = connect({ enableAutoPipelining });
        const counts = await Promise.all(Array.from({ length: 1000 }, () => many.incr(`n${enableAutoPipelining}`)));
        assert.deepEqual(counts, Array.from({ length: 1000 }, (_, n) => n + 1));
      }
    });

    test("streams of keys, members and fields", async () => {
      const names = Array.from({ length: 2000 }, (_, n) => `key:${n}`);
      await client.pipeline(names.map((name) => ["set", name, "v"])).exec();
      await client.sadd("s", ...names);
      await client.hset("h", Object.fromEntries(names.map((name) => [name, "v"])));
      async function all(stream, step = 1) {
        const found = new Set();
        for await (const batch of stream) batch.filter((_, n) => n % step === 0).forEach((name) => found.add(name));
        return [...found].sort();
      }
      const sorted = [...names].sort();
      assert.deepEqual(await all(client.scanStream({ match: "key:*", count: 100 })), sorted);
      assert.deepEqual(await all(client.scanStream({ type: "set" })), ["s"]);
      assert.deepEqual(await all(client.sscanStream("s", { count: 100 })), sorted);
      assert.deepEqual(await all(client.hscanStream("h", { count: 100 }), 2), sorted);
    });

    test("what there is not is an error like any other", async () => {
      await assert.rejects(client.eval("return 1", 0), /^ReplyError: ERR unknown command 'eval'/);
      await assert.rejects(client.call("NONSENSE", "x"), /^ReplyError: ERR unknown command 'NONSENSE'/);
      await client.select(3);
      assert.equal(await client.set("k", "of database 3"), "OK");
      await client.select(0);
      assert.equal(await client.get("k"), null);
      assert.equal(await client.quit(), "OK");
    });
  });
}
