//! Geospatial commands. The figures are those of Redis's tests.

use super::Session;

fn new_york(mut session: Session) -> Session {
    session.transcript(
        "> GEOADD nyc -73.9454966 40.747533 lic_market
         < :1|
         > GEOADD nyc -73.9733487 40.7648057 central_park -73.9903085 40.7362513 union_square -74.0131604 40.7126674 wtc \
             -73.7858139 40.6428986 jfk -73.9375699 40.7498929 q4 -73.9564142 40.7480973 4545
         < :6|",
    );
    session
}

#[test]
fn adding_places() {
    new_york(Session::new()).transcript(
        "> GEOADD nyc NX -73 40 q4
         < :0|
         > GEOADD nyc CH XX -73.9454966 40.747533 lic_market
         < :0|
         > GEOADD nyc XX NX -73 40 q4
         < -ERR syntax error|
         > GEOADD nyc CH XX foo -73 40 q4
         < -ERR syntax error|
         > GEOADD nyc -73 40 q4 foo bar baz
         < -ERR value is not a valid float|
         > GEOADD nyc 200 100 q4
         < -ERR invalid longitude,latitude pair 200.000000,100.000000|
         > ZRANGE nyc 0 1 WITHSCORES
         < *4|$3|wtc|$16|1791873972053020|$12|union_square|$16|1791875485187452|",
    );
}

#[test]
fn where_members_are() {
    let script = "> GEOADD p 13.361389 38.115556 Palermo 15.087269 37.502669 Catania -5.6 42.6 test
         < :3|
         > GEOPOS p Palermo nowhere
         < *2|*2|$20|13.36138933897018433|$20|38.11555639549629859|*-1|
         > GEOPOS p
         < *0|
         > GEOPOS nothing a
         < *1|*-1|
         > GEOHASH p test nowhere
         < *2|$11|ezs42e44yx0|$-1|
         > GEODIST p Palermo Catania
         < $11|166274.1516|
         > GEODIST p Palermo Catania km
         < $8|166.2742|
         > GEODIST p Palermo Palermo
         < $6|0.0000|
         > GEODIST p Palermo nowhere
         < $-1|
         > GEODIST nothing Palermo Catania
         < $-1|
         > GEODIST p Palermo Catania parsec
         < -ERR unsupported unit provided. please use M, KM, FT, MI|
         > GEODIST p Palermo Catania km m
         < -ERR syntax error|
         > SET s v
         < +OK|
         > GEOPOS s a
         < -WRONGTYPE Operation against a key holding the wrong kind of value|";
    Session::new().transcript(script);
    let resp3 = script
        .replace(
            "$20|13.36138933897018433|$20|38.11555639549629859|*-1|",
            ",13.36138933897018433|,38.11555639549629859|_|",
        )
        .replace("*-1|", "_|")
        .replace("$-1|", "_|");
    Session::resp3().transcript(&resp3);
}

#[test]
fn searching_circles() {
    new_york(Session::new()).transcript(
        "> GEORADIUS nyc -73.9798091 40.7598464 3 km asc
         < *3|$12|central_park|$4|4545|$12|union_square|
         > GEORADIUS_RO nyc -73.9798091 40.7598464 3 km WITHDIST ASC
         < *3|*2|$12|central_park|$6|0.7750|*2|$4|4545|$6|2.3651|*2|$12|union_square|$6|2.7697|
         > GEORADIUS nyc -73.9798091 40.7598464 10 km COUNT 1 WITHHASH
         < *1|*2|$12|central_park|:1791875761332224|
         > GEORADIUS nyc -73.9798091 40.7598464 10 km COUNT 3 ANY
         < *3|$3|wtc|$12|union_square|$12|central_park|
         > GEORADIUS nyc -73.9798091 40.7598464 10 km COUNT 3 ANY ASC
         < *3|$12|central_park|$12|union_square|$3|wtc|
         > GEORADIUS nyc -73.9798091 40.7598464 10 km COUNT 2 DESC
         < *2|$3|wtc|$2|q4|
         > GEORADIUSBYMEMBER nyc wtc 7 km
         < *5|$3|wtc|$12|union_square|$12|central_park|$4|4545|$10|lic_market|
         > GEORADIUSBYMEMBER_RO nyc wtc 1 km WITHDIST
         < *1|*2|$3|wtc|$6|0.0000|
         > GEORADIUSBYMEMBER nyc nowhere 7 km
         < -ERR could not decode requested zset member|
         > GEORADIUS nothing 1 1 1 km
         < *0|
         > GEORADIUSBYMEMBER nothing a 1 km
         < *0|
         > GEORADIUS nyc -73 40 10 km ANY ASC
         < -ERR the ANY argument requires COUNT argument|
         > GEORADIUS nyc -73 40 10 km COUNT
         < -ERR syntax error|
         > GEORADIUS nyc -73 40 10 km COUNT 0
         < -ERR COUNT must be > 0|
         > GEORADIUS nyc -73 40 x km
         < -ERR need numeric radius|
         > GEORADIUS nyc -73 40 -1 km
         < -ERR radius cannot be negative|
         > GEORADIUS nyc -73 40 1 km STORE other
         < -ERR syntax error|
         > GEOADD users -47.271613776683807 -54.534504198047678 user
         < :1|
         > GEORADIUS users 0 0 50000 km
         < *1|$4|user|",
    );
}

#[test]
fn searching_areas() {
    new_york(Session::new()).transcript(
        "> GEOSEARCH nyc FROMLONLAT -73.9798091 40.7598464 BYBOX 6 6 km ASC WITHDIST
         < *4|*2|$12|central_park|$6|0.7750|*2|$4|4545|$6|2.3651|*2|$12|union_square|$6|2.7697|*2|$10|lic_market|$6|3.1991|
         > GEOSEARCH nyc FROMMEMBER wtc BYBOX 14 14 km
         < *6|$3|wtc|$12|union_square|$12|central_park|$4|4545|$10|lic_market|$2|q4|
         > GEOSEARCH nyc FROMMEMBER wtc BYRADIUS 1 mi
         < *1|$3|wtc|
         > GEOSEARCH nyc FROMLONLAT -73 40 FROMMEMBER wtc BYBOX 6 6 km
         < -ERR syntax error|
         > GEOSEARCH nyc FROMLONLAT -73 40 BYRADIUS 3 km BYBOX 3 3 km
         < -ERR syntax error|
         > GEOSEARCH nyc BYBOX 3 3 km ASC WITHDIST
         < -ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for geosearch|
         > GEOSEARCH nyc FROMLONLAT -73 40 ASC DESC
         < -ERR exactly one of BYRADIUS and BYBOX can be specified for geosearch|
         > GEOSEARCH nyc FROMLONLAT -73 40 BYBOX 6 6 km STOREDIST
         < -ERR syntax error|
         > GEOSEARCH nyc FROMLONLAT -73 40 BYBOX x 6 km
         < -ERR need numeric width|
         > GEOSEARCH nyc FROMLONLAT -73 40 BYBOX 6 -6 km
         < -ERR height or width cannot be negative|
         > GEOSEARCH nothing FROMMEMBER a BYRADIUS 1 km
         < *0|
         > GEOADD k 45 65 n1 -135 85.05 n2
         < :2|
         > GEORADIUSBYMEMBER k n1 5009431 m
         < *2|$2|n1|$2|n2|",
    );
}
