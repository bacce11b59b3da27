//! The rows of the command table.
//!
//! ```text
//! Variant "name", arity, flags, keys, categories, "since", "complexity", "summary", "syntax" { subcommands }
//!     => handler;
//! ```
//!
//! A handler names the kind ([`Handler`]), how parts are merged ([`Merge`]), `value n` if argument n is a value that
//! may be streamed, and the function, with its constant arguments: `execute::resp` defines the functions of `keyed`,
//! `per_key`, `every_shard` and `cursor`, `shard::commands` those of `local` and those after `else`. A row without a
//! function, or with one that does not exist, does not compile. Categories implied by the flags are left out. [`Row`]
//! explains the columns.

use super::declare::{commands, handler};
use super::flags::{Access::*, Categories, Flags, all, none, one, second, stored};
use super::{Handler, Merge, Row};

commands! {
    "string" {
        Get "get", 2, READONLY | FAST, one(Read), STRING, "1.0.0", "O(1)",
            "Returns the string at a key.", "key" => keyed [strings::get];
        Set "set", -3, WRITE | DENYOOM, one(Varies), STRING, "1.0.0", "O(1)",
            "Stores a string, over whatever the key had.",
            "key value [NX|XX] [GET] [EX seconds:int|PX milliseconds:int|EXAT unix-time-seconds:time|PXAT \
             unix-time-milliseconds:time|KEEPTTL]" => keyed value 2 [strings::set];
        SetEx "setex", 4, WRITE | DENYOOM, one(Overwrite), STRING, "2.0.0", "O(1)",
            "Stores a string that expires after so many seconds.", "key seconds:int value"
            => keyed value 3 [strings::setex(1000)];
        PSetEx "psetex", 4, WRITE | DENYOOM, one(Overwrite), STRING, "2.6.0", "O(1)",
            "Stores a string that expires after so many milliseconds.", "key milliseconds:int value"
            => keyed value 3 [strings::setex(1)];
        SetNx "setnx", 3, WRITE | DENYOOM | FAST, one(Create), STRING, "1.0.0", "O(1)",
            "Stores a string where the key has nothing.", "key value" => keyed value 2 [strings::setnx];
        GetSet "getset", 3, WRITE | DENYOOM | FAST, one(ReadUpdate), STRING, "1.0.0", "O(1)",
            "Stores a string and returns the one before it.", "key value" => keyed value 2 [strings::getset];
        GetEx "getex", -2, WRITE | FAST, one(ReadUpdate), STRING, "6.2.0", "O(1)",
            "Returns a string and changes when it expires.",
            "key [EX seconds:int|PX milliseconds:int|EXAT unix-time-seconds:time|PXAT \
             unix-time-milliseconds:time|PERSIST]" => keyed [strings::getex];
        GetDel "getdel", 2, WRITE | FAST, one(Take), STRING, "6.2.0", "O(1)",
            "Returns a string and removes it.", "key" => keyed [strings::getdel];
        DelIfEq "delifeq", 3, WRITE | FAST, one(Delete), STRING, "9.0.0", "O(n) in the value",
            "Removes a key if its string equals a value.", "key value" => keyed [strings::delifeq];
        Append "append", 3, WRITE | DENYOOM | FAST, one(Insert), STRING, "2.0.0", "O(1) amortised",
            "Adds bytes to the end of a string.", "key value" => keyed value 2 [strings::append];
        StrLen "strlen", 2, READONLY | FAST, one(Look), STRING, "2.2.0", "O(1)",
            "Returns how many bytes a string has.", "key" => keyed [strings::strlen];
        Incr "incr", 2, WRITE | DENYOOM | FAST, one(ReadUpdate), STRING, "1.0.0", "O(1)",
            "Adds one to an integer.", "key" => keyed [strings::add(1)];
        Decr "decr", 2, WRITE | DENYOOM | FAST, one(ReadUpdate), STRING, "1.0.0", "O(1)",
            "Takes one from an integer.", "key" => keyed [strings::add(-1)];
        IncrBy "incrby", 3, WRITE | DENYOOM | FAST, one(ReadUpdate), STRING, "1.0.0", "O(1)",
            "Adds to an integer.", "key increment:int" => keyed [strings::incrby(false)];
        DecrBy "decrby", 3, WRITE | DENYOOM | FAST, one(ReadUpdate), STRING, "1.0.0", "O(1)",
            "Subtracts from an integer.", "key decrement:int" => keyed [strings::incrby(true)];
        IncrByFloat "incrbyfloat", 3, WRITE | DENYOOM | FAST, one(ReadUpdate), STRING, "2.6.0", "O(1)",
            "Adds to a number that may have a fraction.", "key increment:num" => keyed [strings::incrbyfloat];
        GetRange "getrange", 4, READONLY, one(Read), STRING, "2.4.0", "O(n) in the bytes returned",
            "Returns a part of a string.", "key start:int end:int" => keyed [strings::getrange];
        SubStr "substr", 4, READONLY, one(Read), STRING, "1.0.0", "O(n) in the bytes returned",
            "Returns a part of a string; the old name of GETRANGE.", "key start:int end:int"
            => keyed [strings::getrange];
        SetRange "setrange", 4, WRITE | DENYOOM, one(Update), STRING, "2.2.0", "O(1) for short values, else O(n)",
            "Writes over a part of a string, from an offset on.", "key offset:int value" => keyed [strings::setrange];
        MGet "mget", -2, READONLY | FAST, all(Read), STRING, "1.0.0", "O(n) in the keys",
            "Returns the strings at several keys.", "key ..." => per_key(InOrder) [strings::element];
    }
    "bitmap" {
        SetBit "setbit", 4, WRITE | DENYOOM, one(ReadUpdate), BITMAP, "2.2.0", "O(1)",
            "Sets or clears one bit of a string.", "key offset:int value:int" => keyed [bits::setbit];
        GetBit "getbit", 3, READONLY | FAST, one(Read), BITMAP, "2.2.0", "O(1)",
            "Returns one bit of a string.", "key offset:int" => keyed [bits::getbit];
        BitCount "bitcount", -2, READONLY, one(Read), BITMAP, "2.6.0", "O(n) in the bytes looked at",
            "Counts the bits that are set in a string.", "key [start:int [end:int [BYTE|BIT]]]"
            => keyed [bits::bitcount];
        BitPos "bitpos", -3, READONLY, one(Read), BITMAP, "2.8.7", "O(n) in the bytes looked at",
            "Finds the first bit that is set, or clear, in a string.", "key bit:int [start:int [end:int [BYTE|BIT]]]"
            => keyed [bits::bitpos];
        BitField "bitfield", -2, WRITE | DENYOOM, one(Varies), BITMAP, "3.2.0", "O(n) in the operations",
            "Reads and changes integers of any width within a string.",
            "key [{GET {encoding offset:int}|{[OVERFLOW {WRAP|SAT|FAIL}] {SET {encoding offset:int \
             value:int}|INCRBY {encoding offset:int increment:int}}}} ...]" => keyed [bitfield::bitfield(false)];
        BitFieldRo "bitfield_ro", -2, READONLY | FAST, one(Read), BITMAP, "6.0.0", "O(n) in the operations",
            "Reads integers of any width within a string.", "key [GET {encoding offset:int} ...]"
            => keyed [bitfield::bitfield(true)];
    }
    "generic" {
        Del "del", -2, WRITE, all(Remove), KEYSPACE, "1.0.0", "O(n) in the keys",
            "Removes keys.", "key ..." => per_key(Sum) [keys::del];
        Unlink "unlink", -2, WRITE | FAST, all(Remove), KEYSPACE, "4.0.0", "O(n) in the keys",
            "Removes keys; their memory comes back in the background.", "key ..." => per_key(Sum) [keys::del];
        Exists "exists", -2, READONLY | FAST, all(Look), KEYSPACE, "1.0.0", "O(n) in the keys",
            "Counts the keys that exist.", "key ..." => per_key(Sum) [keys::exists];
        Touch "touch", -2, READONLY | FAST, all(Look), KEYSPACE, "3.2.1", "O(n) in the keys",
            "Counts the keys that exist and marks them as used.", "key ..." => per_key(Sum) [keys::touch];
        Expire "expire", -3, WRITE | FAST, one(Update), KEYSPACE, "1.0.0", "O(1)",
            "Sets the time to live of a key, in seconds.", "key seconds:int [NX|XX|GT|LT]"
            => keyed [keys::expire(1000, true)];
        PExpire "pexpire", -3, WRITE | FAST, one(Update), KEYSPACE, "2.6.0", "O(1)",
            "Sets the time to live of a key, in milliseconds.", "key milliseconds:int [NX|XX|GT|LT]"
            => keyed [keys::expire(1, true)];
        ExpireAt "expireat", -3, WRITE | FAST, one(Update), KEYSPACE, "1.2.0", "O(1)",
            "Sets when a key expires, in seconds since 1970.", "key unix-time-seconds:time [NX|XX|GT|LT]"
            => keyed [keys::expire(1000, false)];
        PExpireAt "pexpireat", -3, WRITE | FAST, one(Update), KEYSPACE, "2.6.0", "O(1)",
            "Sets when a key expires, in milliseconds since 1970.", "key unix-time-milliseconds:time [NX|XX|GT|LT]"
            => keyed [keys::expire(1, false)];
        Ttl "ttl", 2, READONLY | FAST, one(Read), KEYSPACE, "1.0.0", "O(1)",
            "Returns the seconds that a key has left.", "key" => keyed [keys::ttl(1000, true)];
        PTtl "pttl", 2, READONLY | FAST, one(Read), KEYSPACE, "2.6.0", "O(1)",
            "Returns the milliseconds that a key has left.", "key" => keyed [keys::ttl(1, true)];
        ExpireTime "expiretime", 2, READONLY | FAST, one(Read), KEYSPACE, "7.0.0", "O(1)",
            "Returns when a key expires, in seconds since 1970.", "key" => keyed [keys::ttl(1000, false)];
        PExpireTime "pexpiretime", 2, READONLY | FAST, one(Read), KEYSPACE, "7.0.0", "O(1)",
            "Returns when a key expires, in milliseconds since 1970.", "key" => keyed [keys::ttl(1, false)];
        Persist "persist", 2, WRITE | FAST, one(Update), KEYSPACE, "2.2.0", "O(1)",
            "Makes a key stay that would have expired.", "key" => keyed [keys::persist];
        Type "type", 2, READONLY | FAST, one(Look), KEYSPACE, "1.0.0", "O(1)",
            "Returns the type of the value at a key.", "key" => keyed [keys::kind];
        Scan "scan", -2, READONLY | TOUCHES_ARBITRARY_KEYS, none(), KEYSPACE, "2.8.0", "O(1) a call, O(n) for all",
            "Returns some keys and a cursor for more.",
            "cursor:int [MATCH pattern:pattern] [COUNT count:int] [TYPE type]" => cursor [keyspace::scan];
        Keys "keys", 2, READONLY, none(), KEYSPACE | DANGEROUS, "1.0.0", "O(n) in all keys",
            "Returns every key that matches a pattern.", "pattern:pattern" => every_shard(Array) [keyspace::keys];
        RandomKey "randomkey", 1, READONLY | TOUCHES_ARBITRARY_KEYS, none(), KEYSPACE, "1.0.0", "O(1)",
            "Returns a key, any.", "" => every_shard(Drawn) [keyspace::random];
        Dump "dump", 2, READONLY, one(Read), KEYSPACE, "2.6.0", "O(n) in the value",
            "Returns a value in the form that RESTORE takes.", "key" => keyed [dump::dump];
        Restore "restore", -4, WRITE | DENYOOM, one(Overwrite), KEYSPACE | DANGEROUS, "2.6.0", "O(n) in the value",
            "Stores a value that DUMP has written.",
            "key ttl:int serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds:int] [FREQ frequency:int]"
            => keyed [dump::restore];
        Object "object", -2, EMPTY, none(), EMPTY, "2.2.3", "O(1)",
            "Tells how a value is kept.", "" {
            "encoding", 3, READONLY, second(Look), KEYSPACE, "2.2.3", "O(1)",
                "Returns the name of a value's representation.", "key";
            "freq", 3, READONLY, second(Look), KEYSPACE, "4.0.0", "O(1)",
                "Returns how often a key is used, where an LFU policy counts it.", "key";
            "help", 2, LOADING | STALE, none(), KEYSPACE, "6.2.0", "O(1)",
                "Lists the subcommands.", "";
            "idletime", 3, READONLY, second(Look), KEYSPACE, "2.2.3", "O(1)",
                "Returns the seconds since a key was used last.", "key";
            "refcount", 3, READONLY, second(Look), KEYSPACE, "2.2.3", "O(1)",
                "Returns the references to a value: always one.", "key";
        } => container [keys::object] else object_help;
    }
    "server" {
        DbSize "dbsize", 1, READONLY | FAST, none(), KEYSPACE, "1.0.0", "O(1)",
            "Returns how many keys there are.", "" => every_shard(Sum) [keyspace::size];
        FlushDb "flushdb", -1, WRITE, none(), KEYSPACE | DANGEROUS, "1.0.0", "O(1), memory comes back later",
            "Removes all keys.", "[ASYNC|SYNC]" => every_shard(Status) [keyspace::flush(false)];
        FlushAll "flushall", -1, WRITE, none(), KEYSPACE | DANGEROUS, "1.0.0", "O(1), memory comes back later",
            "Removes all keys of all databases.", "[ASYNC|SYNC]" => every_shard(Status) [keyspace::flush(true)];
        Memory "memory", -2, EMPTY, none(), EMPTY, "4.0.0", "O(1)",
            "Tells what memory is used for.", "" {
            "doctor", 2, EMPTY, none(), EMPTY, "4.0.0", "O(1)",
                "Says whether memory looks healthy.", "";
            "help", 2, LOADING | STALE, none(), EMPTY, "4.0.0", "O(1)",
                "Lists the subcommands.", "";
            "malloc-stats", 2, EMPTY, none(), EMPTY, "4.0.0", "O(1)",
                "Returns what the allocator says of itself.", "";
            "purge", 2, EMPTY, none(), EMPTY, "4.0.0", "O(1)",
                "Asks for unused memory to be given back.", "";
            "stats", 2, EMPTY, none(), EMPTY, "4.0.0", "O(1)",
                "Returns figures of the memory in use.", "";
            "usage", -3, READONLY, second(Look), EMPTY, "4.0.0", "O(1) to O(n) in the samples",
                "Returns the bytes that a key takes.", "key [SAMPLES count:int]";
        } => container [keys::memory] else memory;
    }
    "list" {
        LPush "lpush", -3, WRITE | DENYOOM | FAST, one(Insert), LIST, "1.0.0", "O(n) in the elements",
            "Adds elements at the head of a list.", "key element ..." => keyed [lists::push(End::Front, true)];
        RPush "rpush", -3, WRITE | DENYOOM | FAST, one(Insert), LIST, "1.0.0", "O(n) in the elements",
            "Adds elements at the tail of a list.", "key element ..." => keyed [lists::push(End::Back, true)];
        LPushX "lpushx", -3, WRITE | DENYOOM | FAST, one(Insert), LIST, "2.2.0", "O(n) in the elements",
            "Adds elements at the head of a list that exists.", "key element ..."
            => keyed [lists::push(End::Front, false)];
        RPushX "rpushx", -3, WRITE | DENYOOM | FAST, one(Insert), LIST, "2.2.0", "O(n) in the elements",
            "Adds elements at the tail of a list that exists.", "key element ..."
            => keyed [lists::push(End::Back, false)];
        LPop "lpop", -2, WRITE | FAST, one(Take), LIST, "1.0.0", "O(n) in the elements",
            "Takes elements from the head of a list.", "key [count:int]" => keyed [lists::pop(End::Front)];
        RPop "rpop", -2, WRITE | FAST, one(Take), LIST, "1.0.0", "O(n) in the elements",
            "Takes elements from the tail of a list.", "key [count:int]" => keyed [lists::pop(End::Back)];
        LLen "llen", 2, READONLY | FAST, one(Look), LIST, "1.0.0", "O(1)",
            "Returns how many elements a list has.", "key" => keyed [lists::llen];
        LRange "lrange", 4, READONLY, one(Read), LIST, "1.0.0", "O(s+n), s to the start and n returned",
            "Returns the elements between two positions.", "key start:int stop:int" => keyed [lists::lrange];
        LIndex "lindex", 3, READONLY, one(Read), LIST, "1.0.0", "O(n) in the distance to the nearer end",
            "Returns the element at a position.", "key index:int" => keyed [lists::lindex];
        LSet "lset", 4, WRITE | DENYOOM, one(Update), LIST, "1.0.0", "O(n) in the distance to the nearer end",
            "Replaces the element at a position.", "key index:int element" => keyed [lists::lset];
        LInsert "linsert", 5, WRITE | DENYOOM, one(Insert), LIST, "2.2.0", "O(n) in the distance to the pivot",
            "Adds an element before or after another.", "key {BEFORE|AFTER} pivot element" => keyed [lists::linsert];
        LRem "lrem", 4, WRITE, one(Delete), LIST, "1.0.0", "O(n) in the list",
            "Removes elements that equal a value.", "key count:int element" => keyed [lists::lrem];
        LTrim "ltrim", 4, WRITE, one(Delete), LIST, "1.0.0", "O(n) in the elements removed",
            "Keeps the elements between two positions only.", "key start:int stop:int" => keyed [lists::ltrim];
        LPos "lpos", -3, READONLY, one(Read), LIST, "6.0.6", "O(n) in the list",
            "Returns where elements are that equal a value.",
            "key element [RANK rank:int] [COUNT num-matches:int] [MAXLEN len:int]" => keyed [lists::lpos];
    }
    "set" {
        SAdd "sadd", -3, WRITE | DENYOOM | FAST, one(Insert), SET, "1.0.0", "O(n) in the members given",
            "Adds members to a set.", "key member ..." => keyed [sets::sadd];
        SRem "srem", -3, WRITE | FAST, one(Delete), SET, "1.0.0", "O(n) in the members given",
            "Removes members from a set.", "key member ..." => keyed [sets::srem];
        SCard "scard", 2, READONLY | FAST, one(Look), SET, "1.0.0", "O(1)",
            "Returns how many members a set has.", "key" => keyed [sets::scard];
        SIsMember "sismember", 3, READONLY | FAST, one(Look), SET, "1.0.0", "O(1)",
            "Tells whether a set has a member.", "key member" => keyed [sets::sismember];
        SMIsMember "smismember", -3, READONLY | FAST, one(Read), SET, "6.2.0", "O(n) in the members given",
            "Tells which of several members a set has.", "key member ..." => keyed [sets::smismember];
        SMembers "smembers", 2, READONLY, one(Read), SET, "1.0.0", "O(n) in the set",
            "Returns all members of a set.", "key" => keyed [sets::smembers];
        SRandMember "srandmember", -2, READONLY, one(Read), SET, "1.0.0", "O(n) in the members returned",
            "Returns members drawn at random.", "key [count:int]" => keyed [sets::srandmember];
        SPop "spop", -2, WRITE | FAST, one(Take), SET, "1.0.0", "O(n) in the members taken",
            "Takes members drawn at random.", "key [count:int]" => keyed [sets::spop];
        SScan "sscan", -3, READONLY, one(Read), SET, "2.8.0", "O(1) a call, O(n) for all",
            "Returns some members and a cursor for more.", "key cursor:int [MATCH pattern:pattern] [COUNT count:int]"
            => keyed [sets::sscan];
    }
    "sorted-set" {
        ZAdd "zadd", -4, WRITE | DENYOOM | FAST, one(Update), SORTEDSET, "1.2.0", "O(log n) a member",
            "Adds members to a sorted set or changes their scores.",
            "key [NX|XX] [GT|LT] [CH] [INCR] {score:num member} ..." => keyed [sorted::add];
        ZIncrBy "zincrby", 4, WRITE | DENYOOM | FAST, one(ReadUpdate), SORTEDSET, "1.2.0", "O(log n)",
            "Adds to the score of a member.", "key increment:int member" => keyed [sorted::increment];
        ZRem "zrem", -3, WRITE | FAST, one(Delete), SORTEDSET, "1.2.0", "O(log n) a member",
            "Removes members from a sorted set.", "key member ..." => keyed [sorted::remove];
        ZCard "zcard", 2, READONLY | FAST, one(Look), SORTEDSET, "1.2.0", "O(1)",
            "Returns how many members a sorted set has.", "key" => keyed [sorted::card];
        ZScore "zscore", 3, READONLY | FAST, one(Read), SORTEDSET, "1.2.0", "O(1)",
            "Returns the score of a member.", "key member" => keyed [sorted::score_of];
        ZMScore "zmscore", -3, READONLY | FAST, one(Read), SORTEDSET, "6.2.0", "O(n) in the members given",
            "Returns the scores of several members.", "key member ..." => keyed [sorted::scores_of];
        ZRank "zrank", -3, READONLY | FAST, one(Read), SORTEDSET, "2.0.0", "O(log n)",
            "Returns how many members are before one.", "key member [WITHSCORE]" => keyed [sorted::rank(false)];
        ZRevRank "zrevrank", -3, READONLY | FAST, one(Read), SORTEDSET, "2.0.0", "O(log n)",
            "Returns how many members are after one.", "key member [WITHSCORE]" => keyed [sorted::rank(true)];
        ZCount "zcount", 4, READONLY | FAST, one(Read), SORTEDSET, "2.0.0", "O(log n)",
            "Counts the members between two scores.", "key min:num max:num" => keyed [ranges::count(By::Score)];
        ZLexCount "zlexcount", 4, READONLY | FAST, one(Read), SORTEDSET, "2.8.9", "O(log n)",
            "Counts the members between two names, in the order of bytes.", "key min max"
            => keyed [ranges::count(By::Name)];
        ZRange "zrange", -4, READONLY, one(Read), SORTEDSET, "1.2.0", "O(log n + m), m returned",
            "Returns members by rank, score or name.",
            "key start stop [BYSCORE|BYLEX] [REV] [LIMIT {offset:int count:int}] [WITHSCORES]" => keyed [ranges::range];
        ZRevRange "zrevrange", -4, READONLY, one(Read), SORTEDSET, "1.2.0", "O(log n + m), m returned",
            "Returns members by rank, from the highest down.", "key start:int stop:int [WITHSCORES]"
            => keyed [ranges::range_by(By::Rank, true)];
        ZRangeByScore "zrangebyscore", -4, READONLY, one(Read), SORTEDSET, "1.0.5", "O(log n + m), m returned",
            "Returns the members between two scores.",
            "key min:num max:num [WITHSCORES] [LIMIT {offset:int count:int}]"
            => keyed [ranges::range_by(By::Score, false)];
        ZRevRangeByScore "zrevrangebyscore", -4, READONLY, one(Read), SORTEDSET, "2.2.0", "O(log n + m), m returned",
            "Returns the members between two scores, from the highest down.",
            "key max:num min:num [WITHSCORES] [LIMIT {offset:int count:int}]"
            => keyed [ranges::range_by(By::Score, true)];
        ZRangeByLex "zrangebylex", -4, READONLY, one(Read), SORTEDSET, "2.8.9", "O(log n + m), m returned",
            "Returns the members between two names, in the order of bytes.",
            "key min max [LIMIT {offset:int count:int}]" => keyed [ranges::range_by(By::Name, false)];
        ZRevRangeByLex "zrevrangebylex", -4, READONLY, one(Read), SORTEDSET, "2.8.9", "O(log n + m), m returned",
            "Returns the members between two names, from the last down.", "key max min [LIMIT {offset:int count:int}]"
            => keyed [ranges::range_by(By::Name, true)];
        ZRemRangeByRank "zremrangebyrank", 4, WRITE, one(Delete), SORTEDSET, "2.0.0", "O(log n + m), m removed",
            "Removes the members between two ranks.", "key start:int stop:int" => keyed [ranges::remove(By::Rank)];
        ZRemRangeByScore "zremrangebyscore", 4, WRITE, one(Delete), SORTEDSET, "1.2.0", "O(log n + m), m removed",
            "Removes the members between two scores.", "key min:num max:num" => keyed [ranges::remove(By::Score)];
        ZRemRangeByLex "zremrangebylex", 4, WRITE, one(Delete), SORTEDSET, "2.8.9", "O(log n + m), m removed",
            "Removes the members between two names.", "key min max" => keyed [ranges::remove(By::Name)];
        ZPopMin "zpopmin", -2, WRITE | FAST, one(Take), SORTEDSET, "5.0.0", "O(log n) a member",
            "Takes the members with the lowest scores.", "key [count:int]" => keyed [sorted::pop(false)];
        ZPopMax "zpopmax", -2, WRITE | FAST, one(Take), SORTEDSET, "5.0.0", "O(log n) a member",
            "Takes the members with the highest scores.", "key [count:int]" => keyed [sorted::pop(true)];
        ZRandMember "zrandmember", -2, READONLY, one(Read), SORTEDSET, "6.2.0", "O(n) in the members returned",
            "Returns members drawn at random.", "key [count:int [WITHSCORES]]" => keyed [sorted::random];
        ZScan "zscan", -3, READONLY, one(Read), SORTEDSET, "2.8.0", "O(1) a call, O(n) for all",
            "Returns some members with scores and a cursor for more.",
            "key cursor:int [MATCH pattern:pattern] [COUNT count:int] [NOSCORES]" => keyed [sorted::scan];
    }
    "hash" {
        HSet "hset", -4, WRITE | DENYOOM | FAST, one(Update), HASH, "2.0.0", "O(n) in the fields given",
            "Sets fields of a hash.", "key {field value} ..." => keyed [hashes::hset];
        HMSet "hmset", -4, WRITE | DENYOOM | FAST, one(Update), HASH, "2.0.0", "O(n) in the fields given",
            "Sets fields of a hash; the old name of HSET.", "key {field value} ..." => keyed [hashes::hmset];
        HSetNx "hsetnx", 4, WRITE | DENYOOM | FAST, one(Insert), HASH, "2.0.0", "O(1)",
            "Sets a field that the hash does not have.", "key field value" => keyed [hashes::hsetnx];
        HGet "hget", 3, READONLY | FAST, one(Read), HASH, "2.0.0", "O(1)",
            "Returns the value of a field.", "key field" => keyed [hashes::hget];
        HMGet "hmget", -3, READONLY | FAST, one(Read), HASH, "2.0.0", "O(n) in the fields given",
            "Returns the values of several fields.", "key field ..." => keyed [hashes::hmget];
        HGetAll "hgetall", 2, READONLY, one(Read), HASH, "2.0.0", "O(n) in the hash",
            "Returns all fields and values.", "key" => keyed [hashes::hgetall];
        HDel "hdel", -3, WRITE | FAST, one(Delete), HASH, "2.0.0", "O(n) in the fields given",
            "Removes fields of a hash.", "key field ..." => keyed [hashes::hdel];
        HExists "hexists", 3, READONLY | FAST, one(Look), HASH, "2.0.0", "O(1)",
            "Tells whether a hash has a field.", "key field" => keyed [hashes::hexists];
        HLen "hlen", 2, READONLY | FAST, one(Look), HASH, "2.0.0", "O(1)",
            "Returns how many fields a hash has.", "key" => keyed [hashes::hlen];
        HKeys "hkeys", 2, READONLY, one(Read), HASH, "2.0.0", "O(n) in the hash",
            "Returns all fields.", "key" => keyed [hashes::hkeys];
        HVals "hvals", 2, READONLY, one(Read), HASH, "2.0.0", "O(n) in the hash",
            "Returns all values.", "key" => keyed [hashes::hvals];
        HIncrBy "hincrby", 4, WRITE | DENYOOM | FAST, one(ReadUpdate), HASH, "2.0.0", "O(1)",
            "Adds to the integer in a field.", "key field increment:int" => keyed [hashes::hincrby];
        HIncrByFloat "hincrbyfloat", 4, WRITE | DENYOOM | FAST, one(ReadUpdate), HASH, "2.6.0", "O(1)",
            "Adds to the number in a field.", "key field increment:num" => keyed [hashes::hincrbyfloat];
        HStrLen "hstrlen", 3, READONLY | FAST, one(Look), HASH, "3.2.0", "O(1)",
            "Returns how many bytes the value of a field has.", "key field" => keyed [hashes::hstrlen];
        HRandField "hrandfield", -2, READONLY, one(Read), HASH, "6.2.0", "O(n) in the fields returned",
            "Returns fields drawn at random.", "key [count:int [WITHVALUES]]" => keyed [hashes::hrandfield];
        HScan "hscan", -3, READONLY, one(Read), HASH, "2.8.0", "O(1) a call, O(n) for all",
            "Returns some fields and a cursor for more.",
            "key cursor:int [MATCH pattern:pattern] [COUNT count:int] [NOVALUES]" => keyed [hashes::hscan];
        HExpire "hexpire", -6, WRITE | DENYOOM | FAST, one(Update), HASH, "7.4.0", "O(n) in the fields given",
            "Sets the time to live of fields, in seconds.",
            "key seconds:int [NX|XX|GT|LT] FIELDS numfields:int field ..." => keyed [fields::hexpire(1000, true)];
        HPExpire "hpexpire", -6, WRITE | DENYOOM | FAST, one(Update), HASH, "7.4.0", "O(n) in the fields given",
            "Sets the time to live of fields, in milliseconds.",
            "key milliseconds:int [NX|XX|GT|LT] FIELDS numfields:int field ..." => keyed [fields::hexpire(1, true)];
        HExpireAt "hexpireat", -6, WRITE | DENYOOM | FAST, one(Update), HASH, "7.4.0", "O(n) in the fields given",
            "Sets when fields expire, in seconds since 1970.",
            "key unix-time-seconds:time [NX|XX|GT|LT] FIELDS numfields:int field ..."
            => keyed [fields::hexpire(1000, false)];
        HPExpireAt "hpexpireat", -6, WRITE | DENYOOM | FAST, one(Update), HASH, "7.4.0", "O(n) in the fields given",
            "Sets when fields expire, in milliseconds since 1970.",
            "key unix-time-milliseconds:time [NX|XX|GT|LT] FIELDS numfields:int field ..."
            => keyed [fields::hexpire(1, false)];
        HTtl "httl", -5, READONLY | FAST, one(Read), HASH, "7.4.0", "O(n) in the fields given",
            "Returns the seconds that fields have left.", "key FIELDS numfields:int field ..."
            => keyed [fields::httl(1000, true)];
        HPTtl "hpttl", -5, READONLY | FAST, one(Read), HASH, "7.4.0", "O(n) in the fields given",
            "Returns the milliseconds that fields have left.", "key FIELDS numfields:int field ..."
            => keyed [fields::httl(1, true)];
        HExpireTime "hexpiretime", -5, READONLY | FAST, one(Read), HASH, "7.4.0", "O(n) in the fields given",
            "Returns when fields expire, in seconds since 1970.", "key FIELDS numfields:int field ..."
            => keyed [fields::httl(1000, false)];
        HPExpireTime "hpexpiretime", -5, READONLY | FAST, one(Read), HASH, "7.4.0", "O(n) in the fields given",
            "Returns when fields expire, in milliseconds since 1970.", "key FIELDS numfields:int field ..."
            => keyed [fields::httl(1, false)];
        HPersist "hpersist", -5, WRITE | FAST, one(Update), HASH, "7.4.0", "O(n) in the fields given",
            "Makes fields stay that would have expired.", "key FIELDS numfields:int field ..."
            => keyed [fields::hpersist];
        HGetEx "hgetex", -5, WRITE | FAST, one(ReadUpdate), HASH, "8.0.0", "O(n) in the fields given",
            "Returns fields and changes when they expire.",
            "key [EX seconds:int|PX milliseconds:int|EXAT unix-time-seconds:time|PXAT \
             unix-time-milliseconds:time|PERSIST] FIELDS numfields:int field ..." => keyed [fields::hgetex];
        HSetEx "hsetex", -6, WRITE | DENYOOM | FAST, one(Update), HASH, "8.0.0", "O(n) in the fields given",
            "Sets fields together with when they expire.",
            "key [FNX|FXX] [EX seconds:int|PX milliseconds:int|EXAT unix-time-seconds:time|PXAT \
             unix-time-milliseconds:time|KEEPTTL] FIELDS numfields:int {field value} ..." => keyed [fields::hsetex];
        HGetDel "hgetdel", -5, WRITE | FAST, one(Take), HASH, "8.0.0", "O(n) in the fields given",
            "Returns fields and removes them.", "key FIELDS numfields:int field ..." => keyed [fields::hgetdel];
    }
    "hyperloglog" {
        PfAdd "pfadd", -2, WRITE | DENYOOM | FAST, one(Insert), HYPERLOGLOG, "2.8.9", "O(1) an element",
            "Counts elements into a HyperLogLog.", "key [element ...]" => keyed [hyperloglog::add];
        PfCount "pfcount", 2, READONLY, one(Read), HYPERLOGLOG, "2.8.9", "O(1)",
            "Estimates how many different elements were counted.", "key" => keyed [hyperloglog::count];
    }
    "geo" {
        GeoAdd "geoadd", -5, WRITE | DENYOOM, one(Update), GEO, "3.2.0", "O(log n) a member",
            "Adds members at places on the globe.", "key [NX|XX] [CH] {longitude:num latitude:num member} ..."
            => keyed [geo::add];
        GeoPos "geopos", -2, READONLY, one(Read), GEO, "3.2.0", "O(1) a member",
            "Returns where members are.", "key [member ...]" => keyed [geo::positions];
        GeoDist "geodist", -4, READONLY, one(Read), GEO, "3.2.0", "O(1)",
            "Returns how far two members are apart.", "key member1 member2 [M|KM|FT|MI]" => keyed [geo::distance];
        GeoHash "geohash", -2, READONLY, one(Read), GEO, "3.2.0", "O(1) a member",
            "Returns the geohash strings of members.", "key [member ...]" => keyed [geo::hashes];
        GeoSearch "geosearch", -7, READONLY, one(Read), GEO, "6.2.0", "O(n + log m), n nearby and m returned",
            "Returns the members in a circle, box or polygon.",
            "key {FROMMEMBER member|FROMLONLAT {longitude:num latitude:num}} {{BYRADIUS radius:num \
             {M|KM|FT|MI}}|{BYBOX width:num height:num {M|KM|FT|MI}}} [ASC|DESC] [COUNT count:int [ANY]] \
             [WITHCOORD] [WITHDIST] [WITHHASH]" => keyed [geo::search];
        GeoRadius "georadius", -6, WRITE | DENYOOM | MOVABLE_KEYS, stored(Read), GEO, "3.2.0",
            "O(n + log m), n nearby and m returned", "Returns or stores the members in a circle around a place.",
            "key longitude:num latitude:num radius:num {M|KM|FT|MI} [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT \
             count:int [ANY]] [ASC|DESC] [STORE storekey:key|STOREDIST storedistkey:key]" => keyed [geo::radius(false)];
        GeoRadiusRo "georadius_ro", -6, READONLY, one(Read), GEO, "3.2.10", "O(n + log m), n nearby and m returned",
            "Returns the members in a circle around a place.",
            "key longitude:num latitude:num radius:num {M|KM|FT|MI} [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT \
             count:int [ANY]] [ASC|DESC]" => keyed [geo::radius(false)];
        GeoRadiusByMember "georadiusbymember", -5, WRITE | DENYOOM | MOVABLE_KEYS, stored(Read), GEO, "3.2.0",
            "O(n + log m), n nearby and m returned", "Returns or stores the members in a circle around another.",
            "key member radius:num {M|KM|FT|MI} [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count:int [ANY]] \
             [ASC|DESC] [STORE storekey:key|STOREDIST storedistkey:key]" => keyed [geo::radius(true)];
        GeoRadiusByMemberRo "georadiusbymember_ro", -5, READONLY, one(Read), GEO, "3.2.10",
            "O(n + log m), n nearby and m returned", "Returns the members in a circle around another.",
            "key member radius:num {M|KM|FT|MI} [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count:int [ANY]] [ASC|DESC]"
            => keyed [geo::radius(true)];
    }
    "connection" {
        Ping "ping", -1, FAST, none(), CONNECTION, "1.0.0", "O(1)",
            "Answers, to show that the server lives.", "[message]" => local [ping];
        Echo "echo", 2, LOADING | STALE | FAST, none(), CONNECTION, "1.0.0", "O(1)",
            "Returns what it was given.", "message" => local [echo];
        Quit "quit", -1, ALLOW_BUSY | NOSCRIPT | LOADING | STALE | FAST | NO_AUTH, none(), CONNECTION, "1.0.0",
            "O(1)", "Closes the connection after the reply.", "" => local [quit];
        Reset "reset", 1, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY, none(), CONNECTION, "6.2.0",
            "O(1)", "Makes the connection as if it were new.", "" => local [reset];
        Hello "hello", -1, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY, none(), CONNECTION, "6.0.0",
            "O(1)", "Changes the protocol's version and tells who the server is.",
            "[protover:int [AUTH {username password}] [SETNAME clientname]]" => local [hello];
        Auth "auth", -2, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY, none(), CONNECTION, "1.0.0",
            "O(1)", "Tells the server the password.", "[username] password" => local [auth];
        Select "select", 2, LOADING | STALE | FAST, none(), CONNECTION, "1.0.0", "O(1)",
            "Chooses the database.", "index:int" => local [select];
        Client "client", -2, EMPTY, none(), EMPTY, "2.4.0", "O(1)",
            "Concerns connections.", "" {
            "getname", 2, NOSCRIPT | LOADING | STALE, none(), CONNECTION, "2.6.9", "O(1)",
                "Returns the name of the connection.", "";
            "help", 2, LOADING | STALE, none(), CONNECTION, "5.0.0", "O(1)",
                "Lists the subcommands.", "";
            "id", 2, NOSCRIPT | LOADING | STALE, none(), CONNECTION, "5.0.0", "O(1)",
                "Returns the number of the connection.", "";
            "info", 2, NOSCRIPT | LOADING | STALE, none(), CONNECTION, "6.2.0", "O(1)",
                "Describes the connection.", "";
            "kill", -3, ADMIN | NOSCRIPT | LOADING | STALE, none(), CONNECTION, "2.4.0", "O(n) in the connections",
                "Closes connections.",
                "{old-format|{ID client-id:int|TYPE {NORMAL|MASTER|PRIMARY|SLAVE|REPLICA|PUBSUB}|USER username|ADDR \
                 addr|LADDR laddr|SKIPME {YES|NO}|MAXAGE maxage:int} ...}";
            "list", -2, ADMIN | NOSCRIPT | LOADING | STALE, none(), CONNECTION, "2.4.0", "O(n) in the connections",
                "Describes all connections.", "[TYPE {NORMAL|MASTER|REPLICA|PUBSUB}] [ID client-id:int ...]";
            "no-evict", 3, ADMIN | NOSCRIPT | LOADING | STALE, none(), CONNECTION, "7.0.0", "O(1)",
                "Keeps the connection when memory for connections is short.", "{ON|OFF}";
            "no-touch", 3, NOSCRIPT | LOADING | STALE, none(), CONNECTION, "7.2.0", "O(1)",
                "Leaves what the connection reads unmarked.", "{ON|OFF}";
            "reply", 3, NOSCRIPT | LOADING | STALE, none(), CONNECTION, "3.2.0", "O(1)",
                "Turns replies off and on.", "{ON|OFF|SKIP}";
            "setinfo", 4, NOSCRIPT | LOADING | STALE, none(), CONNECTION, "7.2.0", "O(1)",
                "Tells the server which library the client uses.", "{LIB-NAME libname|LIB-VER libver}";
            "setname", 3, NOSCRIPT | LOADING | STALE, none(), CONNECTION, "2.6.9", "O(1)",
                "Names the connection.", "connection-name";
        } => local [client];
    }
    "server" {
        Command "command", -1, LOADING | STALE, none(), CONNECTION, "2.8.13", "O(n) in the commands",
            "Describes all commands.", "" {
            "count", 2, LOADING | STALE, none(), CONNECTION, "2.8.13", "O(1)",
                "Returns how many commands there are.", "";
            "docs", -2, LOADING | STALE, none(), CONNECTION, "7.0.0", "O(n) in the commands",
                "Returns the documentation of commands.", "[command-name ...]";
            "getkeys", -3, LOADING | STALE, none(), CONNECTION, "2.8.13", "O(n) in the args",
                "Returns the keys of a command.", "command [arg ...]";
            "getkeysandflags", -3, LOADING | STALE, none(), CONNECTION, "7.0.0", "O(n) in the args",
                "Returns the keys of a command and what it does with them.", "command [arg ...]";
            "help", 2, LOADING | STALE, none(), CONNECTION, "5.0.0", "O(1)",
                "Lists the subcommands.", "";
            "info", -2, LOADING | STALE, none(), CONNECTION, "2.8.13", "O(n) in the commands",
                "Describes some commands.", "[command-name ...]";
            "list", -2, LOADING | STALE, none(), CONNECTION, "7.0.0", "O(n) in the commands",
                "Returns the names of commands.",
                "[FILTERBY {MODULE module-name|ACLCAT category|PATTERN pattern:pattern}]";
        } => local [command];
        Config "config", -2, EMPTY, none(), EMPTY, "2.0.0", "O(1)",
            "Reads and changes settings.", "" {
            "get", -3, ADMIN | NOSCRIPT | LOADING | STALE, none(), EMPTY, "2.0.0", "O(n) in the settings",
                "Returns settings.", "parameter ...";
            "help", 2, LOADING | STALE, none(), EMPTY, "5.0.0", "O(1)",
                "Lists the subcommands.", "";
            "resetstat", 2, ADMIN | NOSCRIPT | LOADING | STALE, none(), EMPTY, "2.0.0", "O(1)",
                "Starts counting anew.", "";
            "rewrite", 2, ADMIN | NOSCRIPT | LOADING | STALE, none(), EMPTY, "2.8.0", "O(1)",
                "Writes the settings to their file.", "";
            "set", -4, ADMIN | NOSCRIPT | LOADING | STALE, none(), EMPTY, "2.0.0", "O(n) in the settings",
                "Changes settings while the server runs.", "{parameter value} ...";
        } => local [config];
        Info "info", -1, LOADING | STALE, none(), DANGEROUS, "1.0.0", "O(1)",
            "Returns figures of the server.", "[section ...]" => local [info];
        SlowLog "slowlog", -2, EMPTY, none(), EMPTY, "2.2.12", "O(1)",
            "Concerns the log of slow commands.", "" {
            "get", -2, ADMIN | LOADING | STALE, none(), EMPTY, "2.2.12", "O(n) in the entries",
                "Returns entries of the log.", "[count:int]";
            "help", 2, LOADING | STALE, none(), EMPTY, "6.2.0", "O(1)",
                "Lists the subcommands.", "";
            "len", 2, ADMIN | LOADING | STALE, none(), EMPTY, "2.2.12", "O(1)",
                "Returns how many entries there are.", "";
            "reset", 2, ADMIN | LOADING | STALE, none(), EMPTY, "2.2.12", "O(n) in the entries",
                "Empties the log.", "";
        } => local [slowlog];
        Latency "latency", -2, EMPTY, none(), EMPTY, "2.8.13", "O(1)",
            "Tells where time goes.", "" {
            "doctor", 2, ADMIN | NOSCRIPT | LOADING | STALE, none(), EMPTY, "2.8.13", "O(1)",
                "Says whether latency looks healthy.", "";
            "graph", 3, ADMIN | NOSCRIPT | LOADING | STALE, none(), EMPTY, "2.8.13", "O(1)",
                "Draws the latency of an event.", "event";
            "help", 2, LOADING | STALE, none(), EMPTY, "2.8.13", "O(1)",
                "Lists the subcommands.", "";
            "histogram", -2, ADMIN | NOSCRIPT | LOADING | STALE, none(), EMPTY, "7.0.0", "O(n) in the commands",
                "Returns how long commands took.", "[command ...]";
            "history", 3, ADMIN | NOSCRIPT | LOADING | STALE, none(), EMPTY, "2.8.13", "O(1)",
                "Returns the latency of an event over time.", "event";
            "latest", 2, ADMIN | NOSCRIPT | LOADING | STALE, none(), EMPTY, "2.8.13", "O(1)",
                "Returns the latest latency of each event.", "";
            "reset", -2, ADMIN | NOSCRIPT | LOADING | STALE, none(), EMPTY, "2.8.13", "O(1)",
                "Forgets what was measured.", "[event ...]";
        } => local [latency];
        Time "time", 1, LOADING | STALE | FAST, none(), EMPTY, "2.6.0", "O(1)",
            "Returns the server's time.", "" => local [time];
        LolWut "lolwut", -1, READONLY | FAST, none(), EMPTY, "5.0.0", "O(1)",
            "Returns the version, for people.", "[VERSION version:int]" => local [lolwut];
        LastSave "lastsave", 1, LOADING | STALE | FAST, none(), ADMIN | DANGEROUS, "1.0.0", "O(1)",
            "Returns when the data was last saved: the start, since it never is.", "" => local [lastsave];
        Acl "acl", -2, EMPTY, none(), EMPTY, "6.0.0", "O(1)",
            "Concerns users.", "" {
            "help", 2, LOADING | STALE, none(), EMPTY, "6.0.0", "O(1)",
                "Lists the subcommands.", "";
            "whoami", 2, NOSCRIPT | LOADING | STALE, none(), EMPTY, "6.0.0", "O(1)",
                "Returns the user of the connection.", "";
        } => local [acl];
        Module "module", -2, EMPTY, none(), EMPTY, "4.0.0", "O(1)",
            "Concerns modules.", "" {
            "help", 2, LOADING | STALE, none(), EMPTY, "5.0.0", "O(1)",
                "Lists the subcommands.", "";
            "list", 2, ADMIN | NOSCRIPT, none(), EMPTY, "4.0.0", "O(n) in the modules",
                "Returns the modules that are loaded.", "";
        } => local [module];
        Role "role", 1, NOSCRIPT | LOADING | STALE | FAST, none(), ADMIN | DANGEROUS, "2.8.12", "O(1)",
            "Returns the part that the server has in replication.", "" => local [role];
    }
    "cluster" {
        Cluster "cluster", -2, EMPTY, none(), EMPTY, "3.0.0", "O(1)",
            "Concerns the cluster.", "" {
            "countkeysinslot", 3, STALE, none(), EMPTY, "3.0.0", "O(1)",
                "Counts the keys of a slot.", "slot:int";
            "getkeysinslot", 4, STALE, none(), EMPTY, "3.0.0", "O(n) in the keys returned",
                "Returns keys of a slot.", "slot:int count:int";
            "help", 2, LOADING | STALE, none(), EMPTY, "5.0.0", "O(1)",
                "Lists the subcommands.", "";
            "info", 2, LOADING | STALE, none(), EMPTY, "3.0.0", "O(1)",
                "Returns the state of the cluster.", "";
            "keyslot", 3, STALE, none(), EMPTY, "3.0.0", "O(n) in the key",
                "Returns the slot that a key belongs to.", "name";
            "links", 2, STALE, none(), EMPTY, "7.0.0", "O(n) in the nodes",
                "Returns the connections between nodes.", "";
            "myid", 2, LOADING | STALE, none(), EMPTY, "3.0.0", "O(1)",
                "Returns the name of the node.", "";
            "myshardid", 2, LOADING | STALE, none(), EMPTY, "7.2.0", "O(1)",
                "Returns the name of the node's shard.", "";
            "nodes", 2, LOADING | STALE, none(), EMPTY, "3.0.0", "O(n) in the nodes",
                "Describes all nodes.", "";
            "replicas", 3, ADMIN | STALE, none(), EMPTY, "5.0.0", "O(n) in the nodes",
                "Describes the replicas of a node.", "node-id";
            "shards", 2, LOADING | STALE, none(), EMPTY, "7.0.0", "O(n) in the nodes",
                "Returns which nodes serve which slots, by shard.", "";
            "slaves", 3, ADMIN | STALE, none(), EMPTY, "3.0.0", "O(n) in the nodes",
                "Describes the replicas of a node; the old name of REPLICAS.", "node-id";
            "slots", 2, LOADING | STALE, none(), EMPTY, "3.0.0", "O(n) in the nodes",
                "Returns which nodes serve which slots.", "";
        } => local [cluster_disabled];
        ReadOnly "readonly", 1, FAST | LOADING | STALE, none(), CONNECTION, "3.0.0", "O(1)",
            "Lets replicas answer what the connection reads.", "" => local [cluster_disabled];
        ReadWrite "readwrite", 1, FAST | LOADING | STALE, none(), CONNECTION, "3.0.0", "O(1)",
            "Lets only owners answer what the connection reads.", "" => local [cluster_disabled];
        Asking "asking", 1, FAST, none(), CONNECTION, "3.0.0", "O(1)",
            "Lets the next command go to a slot that is on its way.", "" => local [cluster_disabled];
    }
}
