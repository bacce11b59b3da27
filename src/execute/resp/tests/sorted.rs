//! Sorted sets.

use super::Session;

#[test]
fn members_and_scores() {
    Session::new().transcript(
        "> ZADD z 10 x 20 y 30 z
         < :3|
         > ZADD z 10 x 21 y
         < :0|
         > ZADD z CH 11 x 21 y 1 w
         < :2|
         > ZADD z 10 a 20
         < -ERR syntax error|
         > ZADD z 10 a 20 b 30.badscore c
         < -ERR value is not a valid float|
         > ZADD z nan a
         < -ERR value is not a valid float|
         > ZCARD z
         < :4|
         > ZSCORE z y
         < $2|21|
         > ZSCORE z q
         < $-1|
         > ZMSCORE z x q
         < *2|$2|11|$-1|
         > ZMSCORE nothing x
         < *1|$-1|
         > ZREM z q y w
         < :2|
         > ZREM z x z
         < :2|
         > EXISTS z
         < :0|
         > ZCARD z
         < :0|
         > ZREM z x
         < :0|
         > SET s v
         < +OK|
         > ZADD s 1 x
         < -WRONGTYPE Operation against a key holding the wrong kind of value|
         > ZSCORE s x
         < -WRONGTYPE Operation against a key holding the wrong kind of value|",
    );
}

#[test]
fn conditions_of_zadd() {
    Session::new().transcript(
        "> ZADD z XX 10 x
         < :0|
         > EXISTS z
         < :0|
         > ZADD z XX INCR 10 x
         < $-1|
         > EXISTS z
         < :0|
         > ZADD z NX 10 x
         < :1|
         > ZADD z nx 11 x 20 y
         < :1|
         > ZADD z XX CH 11 x 30 z
         < :1|
         > ZADD z GT CH 10 x 21 y 5 w
         < :2|
         > ZADD z LT CH 10 x 22 y
         < :1|
         > ZADD z XX NX 1 x
         < -ERR XX and NX options at the same time are not compatible|
         > ZADD z GT NX 1 x
         < -ERR GT, LT, and/or NX options at the same time are not compatible|
         > ZADD z LT GT 1 x
         < -ERR GT, LT, and/or NX options at the same time are not compatible|
         > ZADD z INCR 1 x 2 y
         < -ERR INCR option supports a single increment-element pair|
         > ZADD z INCR 1.5 x
         < $4|11.5|
         > ZADD z NX INCR 1 x
         < $-1|
         > ZADD z GT INCR -1 x
         < $-1|
         > ZADD z LT INCR -1 x
         < $4|10.5|
         > ZINCRBY z -0.5 x
         < $2|10|
         > ZADD zero -0 x
         < :1|
         > ZSCORE zero x
         < $1|0|
         > ZINCRBY zero -0 x
         < $1|0|
         > ZINCRBY z +inf x
         < $3|inf|
         > ZINCRBY z -inf x
         < -ERR resulting score is not a number (NaN)|
         > ZSCORE z x
         < $3|inf|
         > ZINCRBY z one x
         < -ERR value is not a valid float|
         > ZINCRBY new 3.1 x
         < $3|3.1|",
    );
}

#[test]
fn ranks() {
    Session::new().transcript(
        "> ZADD z 10 x 20 y 30 z
         < :3|
         > ZRANK z x
         < :0|
         > ZREVRANK z x
         < :2|
         > ZRANK z z WITHSCORE
         < *2|:2|$2|30|
         > ZRANK z q
         < $-1|
         > ZRANK z q WITHSCORE
         < *-1|
         > ZRANK nothing x WITHSCORE
         < *-1|
         > ZRANK z x WITHSCORES
         < -ERR syntax error|
         > ZREVRANK z x a b
         < -ERR wrong number of arguments for 'zrevrank' command|",
    );
}

#[test]
fn ranges_by_rank() {
    Session::new().transcript(
        "> ZADD z 1 a 2 b 3 c 4 d
         < :4|
         > ZRANGE z 0 -1
         < *4|$1|a|$1|b|$1|c|$1|d|
         > ZRANGE z 1 -2 WITHSCORES
         < *4|$1|b|$1|2|$1|c|$1|3|
         > ZRANGE z -5 0
         < *1|$1|a|
         > ZRANGE z 4 9
         < *0|
         > ZRANGE z 0 -5
         < *0|
         > ZRANGE nothing 0 -1
         < *0|
         > ZRANGE z 0 1 REV
         < *2|$1|d|$1|c|
         > ZREVRANGE z -2 -1 WITHSCORES
         < *4|$1|b|$1|2|$1|a|$1|1|
         > ZREVRANGE z 1 9
         < *3|$1|c|$1|b|$1|a|
         > ZRANGE z a 1
         < -ERR value is not an integer or out of range|
         > ZRANGE z 0 1 LIMIT 0 1
         < -ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX|
         > ZRANGE z 0 1 REV REV
         < -ERR syntax error|
         > ZREVRANGE z 0 1 REV
         < -ERR syntax error|
         > ZREMRANGEBYRANK z 1 2
         < :2|
         > ZREMRANGEBYRANK z 5 9
         < :0|
         > ZREMRANGEBYRANK z 0 -1
         < :2|
         > EXISTS z
         < :0|",
    );
}

#[test]
fn ranges_by_score() {
    Session::new().transcript(
        "> ZADD z -inf a 1 b 2 c 3 d 4 e 5 f +inf g
         < :7|
         > ZRANGEBYSCORE z -inf 2
         < *3|$1|a|$1|b|$1|c|
         > ZRANGEBYSCORE z (2 (4 WITHSCORES
         < *2|$1|d|$1|3|
         > ZRANGEBYSCORE z (-inf (+inf LIMIT 1 2
         < *2|$1|c|$1|d|
         > ZREVRANGEBYSCORE z 4 2
         < *3|$1|e|$1|d|$1|c|
         > ZREVRANGEBYSCORE z +inf -inf LIMIT 1 2 WITHSCORES
         < *4|$1|f|$1|5|$1|e|$1|4|
         > ZREVRANGEBYSCORE z 10 0 LIMIT 20 2
         < *0|
         > ZRANGEBYSCORE z 4 2
         < *0|
         > ZRANGEBYSCORE z 1 9 LIMIT 1 -1
         < *4|$1|c|$1|d|$1|e|$1|f|
         > ZRANGEBYSCORE z 1 9 LIMIT -1 2
         < *0|
         > ZRANGEBYSCORE z 1 9 LIMIT 0
         < -ERR syntax error|
         > ZRANGEBYSCORE z 1 9 LIMIT 0 x
         < -ERR value is not an integer or out of range|
         > ZRANGE z 1 3 BYSCORE
         < *3|$1|b|$1|c|$1|d|
         > ZRANGE z 3 1 BYSCORE REV LIMIT 1 1
         < *1|$1|c|
         > ZRANGEBYSCORE z str 1
         < -ERR min or max is not a float|
         > ZRANGEBYSCORE z 1 NaN
         < -ERR min or max is not a float|
         > ZCOUNT z 2 5
         < :4|
         > ZCOUNT z (5 (2
         < :0|
         > ZCOUNT nothing 1 2
         < :0|
         > ZREMRANGEBYSCORE z (1 3
         < :2|
         > ZREMRANGEBYSCORE z str 3
         < -ERR min or max is not a float|
         > ZRANGE z 0 -1
         < *5|$1|a|$1|b|$1|e|$1|f|$1|g|",
    );
}

#[test]
fn ranges_by_name() {
    Session::new().transcript(
        "> ZADD z 0 alpha 0 bar 0 cool 0 down 0 elephant 0 foo
         < :6|
         > ZRANGEBYLEX z - [cool
         < *3|$5|alpha|$3|bar|$4|cool|
         > ZRANGEBYLEX z (bar (down
         < *1|$4|cool|
         > ZRANGEBYLEX z [coo [elephants LIMIT 1 1
         < *1|$4|down|
         > ZRANGEBYLEX z + -
         < *0|
         > ZREVRANGEBYLEX z + [down
         < *3|$3|foo|$8|elephant|$4|down|
         > ZREVRANGEBYLEX z (elephant - LIMIT 1 2
         < *2|$4|cool|$3|bar|
         > ZRANGE z - (bar BYLEX
         < *1|$5|alpha|
         > ZRANGE z (bar - BYLEX REV
         < *1|$5|alpha|
         > ZRANGE z - + BYLEX WITHSCORES
         < -ERR syntax error, WITHSCORES not supported in combination with BYLEX|
         > ZRANGE z - + BYLEX BYSCORE
         < -ERR syntax error|
         > ZRANGEBYLEX z foo [bar
         < -ERR min or max not valid string range item|
         > ZRANGEBYLEX z +x [bar
         < -ERR min or max not valid string range item|
         > ZLEXCOUNT z - +
         < :6|
         > ZLEXCOUNT z [bar (foo
         < :4|
         > ZREMRANGEBYLEX z [alpha (down
         < :3|
         > ZLEXCOUNT z - +
         < :3|",
    );
}

#[test]
fn taking_the_lowest_and_the_highest() {
    Session::new().transcript(
        "> ZADD z 1 a 2 b 3 c 4 d 5 e
         < :5|
         > ZPOPMIN z
         < *2|$1|a|$1|1|
         > ZPOPMAX z 2
         < *4|$1|e|$1|5|$1|d|$1|4|
         > ZPOPMAX z 0
         < *0|
         > ZPOPMAX z -1
         < -ERR value is out of range, must be positive|
         > ZPOPMIN z 1 1
         < -ERR syntax error|
         > ZPOPMIN z 9
         < *4|$1|b|$1|2|$1|c|$1|3|
         > ZPOPMIN z
         < *0|
         > EXISTS z
         < :0|
         > SET s v
         < +OK|
         > ZPOPMIN s 0
         < -WRONGTYPE Operation against a key holding the wrong kind of value|",
    );
}

#[test]
fn resp3_has_doubles_and_pairs() {
    Session::resp3().transcript(
        "> ZADD z 1 a 2.5 b +inf c
         < :3|
         > ZSCORE z b
         < ,2.5|
         > ZSCORE z q
         < _|
         > ZMSCORE z c q
         < *2|,inf|_|
         > ZINCRBY z 1 a
         < ,2|
         > ZADD z NX INCR 1 a
         < _|
         > ZRANK z b WITHSCORE
         < *2|:1|,2.5|
         > ZRANK z q WITHSCORE
         < _|
         > ZRANGE z 0 0
         < *1|$1|a|
         > ZRANGE z 0 1 WITHSCORES
         < *2|*2|$1|a|,2|*2|$1|b|,2.5|
         > ZREVRANGEBYSCORE z (inf 0 WITHSCORES LIMIT 0 1
         < *1|*2|$1|b|,2.5|
         > ZRANDMEMBER z 9 WITHSCORES
         < *3|*2|$1|a|,2|*2|$1|b|,2.5|*2|$1|c|,inf|
         > ZPOPMIN z
         < *2|$1|a|,2|
         > ZPOPMAX z 1
         < *1|*2|$1|c|,inf|
         > ZRANDMEMBER nothing
         < _|",
    );
}

#[test]
fn members_drawn_at_random() {
    let mut session = Session::new();
    session.transcript(
        "> ZRANDMEMBER z
         < $-1|
         > ZRANDMEMBER z 3
         < *0|
         > ZADD z 1 a
         < :1|
         > ZRANDMEMBER z
         < $1|a|
         > ZRANDMEMBER z -3
         < *3|$1|a|$1|a|$1|a|
         > ZRANDMEMBER z 0
         < *0|
         > ZRANDMEMBER z -2 WITHSCORES
         < *4|$1|a|$1|1|$1|a|$1|1|
         > ZRANDMEMBER z x
         < -ERR value is not an integer or out of range|
         > ZRANDMEMBER z 1 WITHSCORE
         < -ERR syntax error|
         > ZRANDMEMBER z -9223372036854775808
         < -ERR value is out of range|
         > ZRANDMEMBER z -9223372036854775807 WITHSCORES
         < -ERR value is out of range|",
    );
    for n in 0..1000 {
        session.line(&format!("ZADD many {n} member{n}"));
    }
    // No member is drawn twice, and in the end every member has been drawn.
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        let reply = session.line("ZRANDMEMBER many 200");
        let members: std::collections::HashSet<_> =
            reply.split('|').filter(|part| part.starts_with('m')).map(String::from).collect();
        assert_eq!(members.len(), 200);
        seen.extend(members);
    }
    assert_eq!(seen.len(), 1000);
}

#[test]
fn scanning() {
    let script = "> ZSCAN z 0
         < *2|$1|0|*0|
         > ZADD z 1 foo 2.5 fab 10 foobar
         < :3|
         > ZSCAN z 0
         < *2|$1|0|*6|$3|foo|$1|1|$3|fab|$3|2.5|$6|foobar|$2|10|
         > ZSCAN z 0 MATCH foo* COUNT 1000
         < *2|$1|0|*4|$3|foo|$1|1|$6|foobar|$2|10|
         > ZSCAN z 0 NOSCORES
         < *2|$1|0|*3|$3|foo|$3|fab|$6|foobar|
         > ZSCAN z 0 NOVALUES
         < -ERR NOVALUES option can only be used in HSCAN|
         > ZSCAN z x
         < -ERR invalid cursor|
         > ZSCAN z 0 COUNT 0
         < -ERR syntax error|
         > ZADD s 9.8813129168249309e-323 a
         < :1|
         > ZSCAN s 0
         < *2|$1|0|*2|$1|a|$6|1e-322|";
    Session::new().transcript(script);
    Session::resp3().transcript(script);
    let mut session = Session::new();
    for n in 0..1000 {
        session.line(&format!("ZADD many {n} member{n}"));
    }
    let (mut seen, mut cursor) = (std::collections::HashSet::new(), String::from("0"));
    loop {
        let reply = session.line(&format!("ZSCAN many {cursor} COUNT 20"));
        let parts: Vec<_> = reply.split('|').collect();
        seen.extend(parts.iter().filter(|part| part.starts_with('m')).map(|&part| part.to_owned()));
        cursor = parts[2].to_owned();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 1000);
}

/// Commands on a sorted set that is stored in trees.
#[test]
fn large_ones() {
    let mut session = Session::new();
    for n in 0..3000 {
        assert_eq!(session.line(&format!("ZADD z {} member{:04}", n % 100, n)), ":1|");
    }
    session.transcript(
        "> ZCARD z
         < :3000|
         > ZCOUNT z 10 (12
         < :60|
         > ZRANK z member0010
         < :300|
         > ZREVRANK z member2999
         < :0|
         > ZRANGEBYSCORE z (9 10 LIMIT 28 9
         < *2|$10|member2810|$10|member2910|
         > ZREVRANGEBYSCORE z 10 (9 LIMIT 0 2 WITHSCORES
         < *4|$10|member2910|$2|10|$10|member2810|$2|10|
         > ZREVRANGE z 0 1
         < *2|$10|member2999|$10|member2899|
         > ZPOPMAX z 2
         < *4|$10|member2999|$2|99|$10|member2899|$2|99|
         > ZREMRANGEBYSCORE z 10 98
         < :2670|
         > ZCARD z
         < :328|
         > ZREMRANGEBYRANK z 0 -2
         < :327|
         > ZRANGE z 0 -1 WITHSCORES
         < *2|$10|member2799|$2|99|",
    );
}
