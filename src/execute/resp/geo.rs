//! Geospatial commands: sorted sets whose scores are geohashes, and searches around a position.

use super::arguments::{Error, NOT_A_FLOAT, SYNTAX, integer, is, required, text};
use super::sorted::{self, AddOptions};
use super::{Args, Context, Done};
use crate::command::args::Iter;
use crate::engine::{Bound, Bytes, Sorted};
use crate::protocol::resp::Writer;
use crate::values::geohash::{self, Area, Point, Shape};
use crate::values::numbers;

fn point(args: &mut Iter) -> Result<Point, Error> {
    let longitude = numbers::float(required(args)?).ok_or(NOT_A_FLOAT)?;
    let latitude = numbers::float(required(args)?).ok_or(NOT_A_FLOAT)?;
    Point::new(longitude, latitude)
        .ok_or_else(|| Error::Text(format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}").into()))
}

/// Parses a unit; returns its length in metres.
fn unit(arg: &[u8]) -> Result<f64, Error> {
    let units = [("m", 1.0), ("km", 1000.0), ("ft", 0.3048), ("mi", 1609.34)];
    let found = units.into_iter().find(|(name, _)| is(arg, name));
    found.map(|(_, metres)| metres).ok_or(text("ERR unsupported unit provided. please use M, KM, FT, MI"))
}

/// The position of a member.
fn point_of(sorted: &Sorted, member: &[u8]) -> Option<Point> {
    sorted.score(member).map(Point::from_score)
}

fn write_point(w: &mut Writer, point: Point) {
    w.array(2);
    w.human_double(point.longitude());
    w.human_double(point.latitude());
}

fn write_distance(w: &mut Writer, distance: f64) {
    let mut digits = Vec::with_capacity(24);
    geohash::write_distance(distance, &mut digits);
    w.bulk(&digits);
}

/// Parses members behind their coordinates.
fn points(args: Args<'_>) -> Result<Vec<(f64, &[u8])>, Error> {
    let (mut args, mut members) = (args.into_iter(), Vec::with_capacity(args.len() / 3));
    while args.len() > 0 {
        members.push((point(&mut args)?.score(), required(&mut args)?));
    }
    Ok(members)
}

/// GEOADD.
pub(super) fn add(c: &mut Context, w: &mut Writer) -> Done {
    let (mut options, mut args) = (AddOptions::default(), c.args.skip(1));
    while let Some((arg, rest)) = args.split_first() {
        if !options.take_common(arg) {
            break;
        }
        args = rest;
    }
    if args.is_empty() || !args.len().is_multiple_of(3) || options.check().is_err() {
        return Err(SYNTAX);
    }
    sorted::add_all(c, w, args, 3, points, options)
}

/// GEOPOS.
pub(super) fn positions(c: &mut Context, w: &mut Writer) -> Done {
    sorted::write_each_member(c, w, |w, sorted, member| match sorted.and_then(|sorted| point_of(sorted, member)) {
        Some(point) => write_point(w, point),
        None => w.null_array(),
    })
}

/// GEOHASH.
pub(super) fn hashes(c: &mut Context, w: &mut Writer) -> Done {
    sorted::write_each_member(c, w, |w, sorted, member| match sorted.and_then(|sorted| point_of(sorted, member)) {
        Some(point) => w.bulk(&point.text()),
        None => w.null(),
    })
}

/// GEODIST.
pub(super) fn distance(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let (from, to) = (required(&mut args)?, required(&mut args)?);
    let metres = args.next().map_or(Ok(1.0), unit)?;
    if args.len() > 0 {
        return Err(SYNTAX);
    }
    let distance = sorted::find(c)?.and_then(|sorted| Some(point_of(&sorted, from)?.distance(point_of(&sorted, to)?)));
    match distance {
        Some(distance) => write_distance(w, distance / metres),
        None => w.null(),
    }
    Ok(())
}

/// The centre of a search.
#[derive(Clone, Copy, Debug)]
enum Center<'w> {
    Member(&'w [u8]),
    Point(Point),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Nearest,
    Farthest,
}

/// The criteria of a search, and the contents of its reply.
#[derive(Clone, Copy, Debug, Default)]
struct Search<'w> {
    center: Option<Center<'w>>,
    /// The area, in metres.
    shape: Option<Shape>,
    /// The unit of distances, in metres.
    unit: f64,
    with_distance: bool,
    with_score: bool,
    with_point: bool,
    order: Option<Order>,
    /// The most members to return.
    count: Option<usize>,
    /// Return the first members found instead of the nearest.
    any: bool,
}

impl<'w> Search<'w> {
    fn circle(&mut self, args: &mut Iter) -> Result<(), Error> {
        let radius = numbers::float(required(args)?).ok_or(text("ERR need numeric radius"))?;
        if radius < 0.0 {
            return Err(text("ERR radius cannot be negative"));
        }
        self.unit = unit(required(args)?)?;
        self.shape = Some(Shape::Circle { radius: radius * self.unit });
        Ok(())
    }

    fn rectangle(&mut self, args: &mut Iter) -> Result<(), Error> {
        let width = numbers::float(required(args)?).ok_or(text("ERR need numeric width"))?;
        let height = numbers::float(required(args)?).ok_or(text("ERR need numeric height"))?;
        if width < 0.0 || height < 0.0 {
            return Err(text("ERR height or width cannot be negative"));
        }
        self.unit = unit(required(args)?)?;
        self.shape = Some(Shape::Box { width: width * self.unit, height: height * self.unit });
        Ok(())
    }

    /// Parses the remaining options. Those that specify the centre and the area are accepted only if `area`.
    fn read(mut self, mut args: Iter<'w>, area: bool) -> Result<Self, Error> {
        while let Some(arg) = args.next() {
            let taken = self.take(arg, &mut args)? || area && self.take_area(arg, &mut args)?;
            if !taken {
                return Err(SYNTAX);
            }
        }
        if self.center.is_none() {
            return Err(text("ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for geosearch"));
        }
        if self.shape.is_none() {
            return Err(text("ERR exactly one of BYRADIUS and BYBOX can be specified for geosearch"));
        }
        if self.any && self.count.is_none() {
            return Err(text("ERR the ANY argument requires COUNT argument"));
        }
        // As in Redis, a limited search is ordered from the nearest member unless ANY is given.
        if self.count.is_some() && !self.any && self.order.is_none() {
            self.order = Some(Order::Nearest);
        }
        Ok(self)
    }

    /// Parses an option that every search has; false if `arg` is not one.
    fn take(&mut self, arg: &[u8], args: &mut Iter) -> Result<bool, Error> {
        match arg.to_ascii_uppercase().as_slice() {
            b"WITHDIST" => self.with_distance = true,
            b"WITHHASH" => self.with_score = true,
            b"WITHCOORD" => self.with_point = true,
            b"ANY" => self.any = true,
            b"ASC" => self.order = Some(Order::Nearest),
            b"DESC" => self.order = Some(Order::Farthest),
            b"COUNT" => {
                let count = integer(required(args)?)?;
                let count = usize::try_from(count).ok().filter(|&count| count > 0);
                self.count = Some(count.ok_or(text("ERR COUNT must be > 0"))?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Parses an option that specifies the centre or the area; false if `arg` is not one.
    fn take_area(&mut self, arg: &[u8], args: &mut Iter<'w>) -> Result<bool, Error> {
        match arg.to_ascii_uppercase().as_slice() {
            b"FROMMEMBER" if !matches!(self.center, Some(Center::Point(_))) => {
                self.center = Some(Center::Member(required(args)?));
            }
            b"FROMLONLAT" if !matches!(self.center, Some(Center::Member(_))) => {
                self.center = Some(Center::Point(point(args)?));
            }
            b"BYRADIUS" if !matches!(self.shape, Some(Shape::Box { .. })) => self.circle(args)?,
            b"BYBOX" if !matches!(self.shape, Some(Shape::Circle { .. })) => self.rectangle(args)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn area(&self, sorted: &Sorted) -> Result<Area, Error> {
        let center = match self.center {
            Some(Center::Member(member)) => point_of(sorted, member),
            Some(Center::Point(point)) => Some(point),
            None => None,
        };
        match (center, self.shape) {
            (Some(center), Some(shape)) => Ok(Area { center, shape }),
            _ => Err(text("ERR could not decode requested zset member")),
        }
    }

    /// Finds the members that match, in the order requested.
    fn run<'s>(&self, sorted: &Sorted<'s>) -> Result<Vec<Found<'s>>, Error> {
        let area = self.area(sorted)?;
        let enough = self.count.filter(|_| self.any).unwrap_or(usize::MAX);
        let mut found = Vec::new();
        for scores in area.scores() {
            let first = sorted.rank_of(Bound::Score { score: scores.start as f64, after: false });
            for (member, score) in sorted.forward_from(first) {
                if score >= scores.end as f64 || found.len() >= enough {
                    break;
                }
                let point = Point::from_score(score);
                if let Some(distance) = area.distance_within(point) {
                    found.push(Found { member, score, point, distance });
                }
            }
        }
        self.arrange(&mut found);
        Ok(found)
    }

    fn arrange(&self, found: &mut Vec<Found>) {
        let count = self.count.unwrap_or(usize::MAX);
        let Some(order) = self.order else { return };
        let compare = |a: &Found, b: &Found| match order {
            Order::Nearest => a.distance.total_cmp(&b.distance),
            Order::Farthest => b.distance.total_cmp(&a.distance),
        };
        if count < found.len() {
            found.select_nth_unstable_by(count, compare);
            found.truncate(count);
        }
        found.sort_unstable_by(compare);
    }

    fn write(&self, found: &[Found], w: &mut Writer) {
        let details = [self.with_distance, self.with_score, self.with_point].into_iter().filter(|&with| with).count();
        w.array(found.len());
        for Found { member, score, point, distance } in found {
            if details > 0 {
                w.array(1 + details);
            }
            w.bulk(member);
            if self.with_distance {
                write_distance(w, distance / self.unit);
            }
            if self.with_score {
                w.integer(*score as i64);
            }
            if self.with_point {
                write_point(w, *point);
            }
        }
    }
}

/// A member in the area.
#[derive(Debug)]
struct Found<'s> {
    member: Bytes<'s>,
    score: f64,
    point: Point,
    /// The distance from the centre, in metres.
    distance: f64,
}

/// GEOSEARCH.
pub(super) fn search(c: &mut Context, w: &mut Writer) -> Done {
    let search = Search::default().read(c.args.skip(1).into_iter(), true)?;
    answer(c, w, search)
}

/// GEORADIUS and GEORADIUSBYMEMBER, without their STORE options.
pub(super) fn radius(c: &mut Context, w: &mut Writer, by_member: bool) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let center = match by_member {
        true => Center::Member(required(&mut args)?),
        false => Center::Point(point(&mut args)?),
    };
    let mut search = Search { center: Some(center), ..Search::default() };
    search.circle(&mut args)?;
    let search = search.read(args, false)?;
    answer(c, w, search)
}

fn answer(c: &mut Context, w: &mut Writer, search: Search) -> Done {
    let found = match sorted::find(c)? {
        Some(sorted) => search.run(&sorted)?,
        None => Vec::new(),
    };
    search.write(&found, w);
    Ok(())
}
