//! Geographic positions as scores of sorted sets, for GEOADD, GEOSEARCH and related commands.
//!
//! A score has 52 bits: 26 of the longitude and 26 of the latitude, interleaved from the highest on, the longitude's
//! first. Each bit halves the range that the bits before it left, so the positions of a *cell*, which share a prefix,
//! form one range of scores. A search visits the cell of its centre and the eight around it, in a size at which they
//! cover the area, and then tests each position. Latitudes end at ±85.05112878°, as in web maps.
//!
//! Cells and their order are Redis's; the order determines the results of GEOSEARCH … COUNT … ANY.

use std::ops::Range;

/// Longitudes are within ±this many degrees.
pub const LONGITUDE_MAX: f64 = 180.0;

/// Latitudes are within ±this many degrees.
pub const LATITUDE_MAX: f64 = 85.051_128_78;

/// Characters of a standard geohash, as GEOHASH replies.
pub const TEXT_BYTES: usize = 11;

/// Bits of a score for each coordinate.
const STEPS_MAX: u32 = 26;

/// Radius of the Earth in metres, for the haversine formula.
const EARTH_RADIUS: f64 = 6_372_797.560_856;

/// Half of the Earth's circumference in metres, for the Mercator projection.
const MERCATOR_MAX: f64 = 20_037_726.37;

/// The standard geohash alphabet.
const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";

/// A position on the Earth, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    longitude: f64,
    latitude: f64,
}

/// The shape of a search area around its centre; lengths are in metres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Positions within this distance (BYRADIUS).
    Circle {
        /// From the centre.
        radius: f64,
    },
    /// Positions in a box along the meridians and parallels (BYBOX).
    Box {
        /// Width from west to east, measured at the latitude of each position.
        width: f64,
        /// Height from north to south.
        height: f64,
    },
}

/// A search area.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    /// The middle of the shape.
    pub center: Point,
    /// The shape.
    pub shape: Shape,
}

impl Point {
    /// A position; `None` if a coordinate (in degrees) is out of range.
    pub fn new(longitude: f64, latitude: f64) -> Option<Self> {
        let sound = longitude.abs() <= LONGITUDE_MAX && latitude.abs() <= LATITUDE_MAX;
        sound.then_some(Self { longitude, latitude })
    }

    /// Degrees to the east.
    pub fn longitude(self) -> f64 {
        self.longitude
    }

    /// Degrees to the north.
    pub fn latitude(self) -> f64 {
        self.latitude
    }

    /// The centre of the cell of a score, which is at most 0.6 m wide. A score that no position encodes yields some
    /// position.
    pub fn from_score(score: f64) -> Self {
        let (west, south, east, north) = Cell { bits: score as u64, steps: STEPS_MAX }.bounds();
        Self {
            longitude: f64::midpoint(west, east).clamp(-LONGITUDE_MAX, LONGITUDE_MAX),
            latitude: f64::midpoint(south, north).clamp(-LATITUDE_MAX, LATITUDE_MAX),
        }
    }

    /// The score of a position: an integer that a float represents exactly.
    pub fn score(self) -> f64 {
        Cell::of(self, STEPS_MAX, LATITUDE_MAX).bits as f64
    }

    /// The distance in metres on a sphere (haversine formula).
    pub fn distance(self, other: Self) -> f64 {
        let v = ((other.longitude.to_radians() - self.longitude.to_radians()) / 2.0).sin();
        if v == 0.0 {
            return self.distance_along_meridian(other);
        }
        let (from, to) = (self.latitude.to_radians(), other.latitude.to_radians());
        let u = ((to - from) / 2.0).sin();
        let a = u * u + from.cos() * to.cos() * v * v;
        2.0 * EARTH_RADIUS * a.sqrt().asin()
    }

    /// The north-south distance in metres.
    fn distance_along_meridian(self, other: Self) -> f64 {
        EARTH_RADIUS * (other.latitude.to_radians() - self.latitude.to_radians()).abs()
    }

    /// The standard geohash, whose latitudes extend to the poles. Its last character is always `0`, because a score has
    /// fewer bits.
    pub fn text(self) -> [u8; TEXT_BYTES] {
        let bits = Cell::of(self, STEPS_MAX, 90.0).bits;
        std::array::from_fn(|at| match (2 * STEPS_MAX).checked_sub(5 * (at as u32 + 1)) {
            Some(shift) => ALPHABET[(bits >> shift) as usize & 31],
            None => ALPHABET[0],
        })
    }
}

impl Area {
    /// The distance in metres of a position from the centre; `None` if it is outside the area.
    pub fn distance_within(&self, point: Point) -> Option<f64> {
        match self.shape {
            Shape::Circle { radius } => Some(self.center.distance(point)).filter(|&distance| distance <= radius),
            Shape::Box { width, height } => {
                if self.center.distance_along_meridian(point) > height / 2.0 {
                    return None;
                }
                let beside = Point { longitude: self.center.longitude, ..point };
                (point.distance(beside) <= width / 2.0).then(|| self.center.distance(point))
            }
        }
    }

    /// The ranges of scores that contain all positions of the area, and many outside it: up to nine, without overlaps.
    pub fn scores(&self) -> Vec<Range<u64>> {
        let bounds @ (_, south, _, north) = self.bounds();
        let mut steps = self.steps();
        if steps > 1 && !Cells::around(self.center, steps).reach(bounds) {
            steps -= 1;
        }
        let Cells { center, around } = Cells::around(self.center, steps);
        let mut cells = vec![center];
        let (center_west, center_south, center_east, center_north) = center.bounds();
        for (cell, side) in around {
            // Cells on a side where the centre's cell extends beyond the area are not needed. With a single step there
            // are only four cells, and no cell is beside another in only one direction.
            let needless = steps >= 2
                && ((side.north < 0 && center_south < south)
                    || (side.north > 0 && center_north > north)
                    || (side.east < 0 && center_west < bounds.0)
                    || (side.east > 0 && center_east > bounds.2));
            if !needless && !cells.contains(&cell) {
                cells.push(cell);
            }
        }
        cells.into_iter().map(Cell::scores).collect()
    }

    /// The bounds (west, south, east, north) in degrees. Meridians converge towards the poles, so the side nearer to a
    /// pole determines how many degrees wide the area is.
    fn bounds(&self) -> (f64, f64, f64, f64) {
        let degrees = |radians: f64| radians / 1f64.to_radians();
        let (width, height) = match self.shape {
            Shape::Circle { radius } => (radius, radius),
            Shape::Box { width, height } => (width / 2.0, height / 2.0),
        };
        let Point { longitude, latitude } = self.center;
        let up = degrees(height / EARTH_RADIUS);
        let polewards = if latitude < 0.0 { latitude - up } else { latitude + up };
        let aside = degrees(width / EARTH_RADIUS / polewards.to_radians().cos());
        (longitude - aside, latitude - up, longitude + aside, latitude + up)
    }

    /// The number of bits per coordinate of the cells for a search.
    fn steps(&self) -> u32 {
        let mut reach = match self.shape {
            Shape::Circle { radius } => radius,
            Shape::Box { width, height } => (width / 2.0).hypot(height / 2.0),
        };
        if reach == 0.0 {
            return STEPS_MAX;
        }
        let mut steps = 1i32;
        while reach < MERCATOR_MAX {
            reach *= 2.0;
            steps += 1;
        }
        // At this number one cell is usually wider than the reach; towards the poles cells need to be larger.
        steps -= 2;
        steps -= i32::from(self.center.latitude.abs() > 66.0) + i32::from(self.center.latitude.abs() > 80.0);
        steps.clamp(1, STEPS_MAX as i32) as u32
    }
}

/// All positions whose coordinates share a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    bits: u64,
    /// Bits per coordinate.
    steps: u32,
}

/// The direction of a neighbour.
#[derive(Clone, Copy, Debug)]
struct Side {
    east: i32,
    north: i32,
}

/// A cell and its eight neighbours.
struct Cells {
    center: Cell,
    around: [(Cell, Side); 8],
}

impl Cell {
    /// The cell of a position. The eastern and northern edge of the world need one bit more than is available.
    fn of(point: Point, steps: u32, latitude_max: f64) -> Self {
        let cells = f64::from(1 << steps);
        let part = |value: f64, max: f64| (((value + max) / (2.0 * max)) * cells) as u32;
        let (longitude, latitude) = (part(point.longitude, LONGITUDE_MAX), part(point.latitude, latitude_max));
        Self { bits: spread(latitude) | spread(longitude) << 1, steps }
    }

    /// The bounds (west, south, east, north) in degrees.
    fn bounds(self) -> (f64, f64, f64, f64) {
        let cells = f64::from(1 << self.steps);
        let edge = |part: u32, max: f64| -max + (f64::from(part) / cells) * (2.0 * max);
        let (longitude, latitude) = (gather(self.bits >> 1), gather(self.bits));
        (
            edge(longitude, LONGITUDE_MAX),
            edge(latitude, LATITUDE_MAX),
            edge(longitude.wrapping_add(1), LONGITUDE_MAX),
            edge(latitude.wrapping_add(1), LATITUDE_MAX),
        )
    }

    /// The neighbour in a direction; coordinates wrap around in both.
    fn beside(self, side: Side) -> Self {
        let moved =
            |part: u32, by: i32| if by == 0 { part } else { part.wrapping_add_signed(by) & ((1 << self.steps) - 1) };
        let (longitude, latitude) = (gather(self.bits >> 1), gather(self.bits));
        let bits = spread(moved(latitude, side.north)) | spread(moved(longitude, side.east)) << 1;
        Self { bits, ..self }
    }

    fn scores(self) -> Range<u64> {
        let shift = 2 * (STEPS_MAX - self.steps);
        self.bits << shift..(self.bits + 1) << shift
    }
}

impl Cells {
    /// In the order in which a search visits them.
    const SIDES: [Side; 8] = [
        Side { east: 0, north: 1 },
        Side { east: 0, north: -1 },
        Side { east: 1, north: 0 },
        Side { east: -1, north: 0 },
        Side { east: 1, north: 1 },
        Side { east: -1, north: 1 },
        Side { east: 1, north: -1 },
        Side { east: -1, north: -1 },
    ];

    fn around(point: Point, steps: u32) -> Self {
        let center = Cell::of(point, steps, LATITUDE_MAX);
        Self { center, around: Self::SIDES.map(|side| (center.beside(side), side)) }
    }

    /// Whether the neighbours reach the bounds. A neighbour beyond the edge of the world does not.
    fn reach(&self, (west, south, east, north): (f64, f64, f64, f64)) -> bool {
        let [up, down, right, left] = [0, 1, 2, 3].map(|side| self.around[side].0.bounds());
        up.3 >= north && down.1 <= south && right.2 >= east && left.0 <= west
    }
}

/// Spreads the bits of a coordinate to every second place, from the lowest on.
fn spread(value: u32) -> u64 {
    let mut bits = u64::from(value);
    bits = (bits | bits << 16) & 0x0000_ffff_0000_ffff;
    bits = (bits | bits << 8) & 0x00ff_00ff_00ff_00ff;
    bits = (bits | bits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    bits = (bits | bits << 2) & 0x3333_3333_3333_3333;
    (bits | bits << 1) & 0x5555_5555_5555_5555
}

/// The inverse of [`spread`]; ignores the other bits.
fn gather(bits: u64) -> u32 {
    let mut bits = bits & 0x5555_5555_5555_5555;
    bits = (bits | bits >> 1) & 0x3333_3333_3333_3333;
    bits = (bits | bits >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    bits = (bits | bits >> 4) & 0x00ff_00ff_00ff_00ff;
    bits = (bits | bits >> 8) & 0x0000_ffff_0000_ffff;
    (bits | bits >> 16) as u32
}

/// Appends a distance, in any unit, with four decimals, as in replies of GEODIST (`fixedpoint_d2string`).
///
/// [`write_human_float`](super::numbers::write_human_float) writes coordinates.
pub fn write_distance(distance: f64, output: &mut Vec<u8>) {
    const SCALE: u64 = 10_000;

    let scaled = (distance * SCALE as f64).round_ties_even() as u64;
    let mut buffer = itoa::Buffer::new();
    output.extend_from_slice(buffer.format(scaled / SCALE).as_bytes());
    output.push(b'.');
    // The leading one preserves leading zeros of the fraction.
    output.extend_from_slice(&buffer.format(SCALE + scaled % SCALE).as_bytes()[1..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::numbers::write_human_float;
    use proptest::prelude::*;

    fn point(longitude: f64, latitude: f64) -> Point {
        Point::new(longitude, latitude).expect("on Earth")
    }

    fn palermo() -> Point {
        point(13.361389, 38.115556)
    }

    fn catania() -> Point {
        point(15.087269, 37.502669)
    }

    fn stored(point: Point) -> Point {
        Point::from_score(point.score())
    }

    fn distance_text(distance: f64) -> String {
        let mut output = Vec::new();
        write_distance(distance, &mut output);
        String::from_utf8(output).expect("ASCII")
    }

    /// The vectors of the documentation of GEOADD, GEODIST, GEOHASH and GEOPOS.
    #[test]
    fn places_of_the_documentation() {
        assert_eq!(palermo().score(), 3_479_099_956_230_698.0);
        assert_eq!(catania().score(), 3_479_447_370_796_909.0);
        assert_eq!(&stored(palermo()).text(), b"sqc8b49rny0");
        assert_eq!(&stored(catania()).text(), b"sqdtr74hyu0");
        let distance = stored(palermo()).distance(stored(catania()));
        assert_eq!(distance_text(distance), "166274.1516");
        assert_eq!(distance_text(distance / 1_000.0), "166.2742");
        assert_eq!(distance_text(distance / 1_609.34), "103.3182");
        let mut output = Vec::new();
        for coordinate in [stored(palermo()).longitude(), stored(palermo()).latitude()] {
            write_human_float(coordinate, &mut output);
            output.push(b' ');
        }
        assert_eq!(output, b"13.36138933897018433 38.11555639549629859 ");
    }

    #[test]
    fn distances_have_four_decimals() {
        for (distance, text) in
            [(0.0, "0.0000"), (0.775, "0.7750"), (1.0, "1.0000"), (0.00005, "0.0000"), (12.34567, "12.3457")]
        {
            assert_eq!(distance_text(distance), text);
        }
    }

    /// GEOSEARCH … FROMLONLAT 15 37, of the documentation.
    #[test]
    fn areas_of_the_documentation() {
        let around = |shape| Area { center: point(15.0, 37.0), shape };
        let near = around(Shape::Circle { radius: 200_000.0 });
        let kilometres = |place| near.distance_within(stored(place)).map(|metres| distance_text(metres / 1_000.0));
        assert_eq!(kilometres(palermo()).as_deref(), Some("190.4424"));
        assert_eq!(kilometres(catania()).as_deref(), Some("56.4413"));
        assert_eq!(near.distance_within(point(17.241510, 38.788135)), None);
        let square = around(Shape::Box { width: 400_000.0, height: 400_000.0 });
        assert_eq!(square.distance_within(point(17.241510, 38.788135)).map(|d| d as u32), Some(279_740));
        assert_eq!(square.distance_within(point(12.758489, 38.788135)).map(|d| d as u32), Some(279_740));
        assert_eq!(square.distance_within(point(20.0, 37.0)), None);
        assert_eq!(square.distance_within(point(15.0, 39.0)), None);
    }

    #[test]
    fn the_edges_of_the_world() {
        for (longitude, latitude) in
            [(180.1, 0.0), (-180.1, 0.0), (0.0, 85.06), (0.0, -85.06), (f64::NAN, 0.0), (0.0, f64::NAN)]
        {
            assert_eq!(Point::new(longitude, latitude), None);
        }
        for longitude in [-LONGITUDE_MAX, LONGITUDE_MAX] {
            for latitude in [-LATITUDE_MAX, LATITUDE_MAX] {
                let corner = point(longitude, latitude);
                assert!(corner.distance(stored(corner)) < 1.0);
                for radius in [0.0, 1.0, 1e3, 1e6, 1e7, 1e9] {
                    let area = Area { center: corner, shape: Shape::Circle { radius } };
                    assert!((1..=9).contains(&area.scores().len()));
                }
            }
        }
    }

    #[test]
    fn any_score_is_some_place() {
        for score in [-1.0, 0.0, 0.5, 4_503_599_627_370_496.0, 1e300, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            let place = Point::from_score(score);
            assert_eq!(Point::new(place.longitude(), place.latitude()), Some(place));
        }
    }

    #[test]
    fn neighbours_come_back() {
        for steps in [1, 2, 13, 26] {
            let cell = Cell::of(palermo(), steps, LATITUDE_MAX);
            for side in Cells::SIDES {
                let back = Side { east: -side.east, north: -side.north };
                assert_eq!(cell.beside(side).beside(back), cell);
            }
        }
    }

    prop_compose! {
        fn any_point()(longitude in -180.0..180.0, latitude in -85.05..85.05) -> Point {
            point(longitude, latitude)
        }
    }

    proptest! {
        #[test]
        fn bits_are_spread_and_gathered(value: u32) {
            prop_assert_eq!(gather(spread(value)), value);
            prop_assert_eq!(spread(value) & spread(value) << 1, 0);
        }

        #[test]
        fn scores_are_places(place in any_point()) {
            prop_assert!(place.distance(stored(place)) < 0.6);
            prop_assert_eq!(stored(place).score(), place.score());
        }

        /// Away from the edges of the world, whose other side Redis does not search.
        #[test]
        fn places_of_an_area_are_in_its_scores(
            longitude in -90.0..90.0, latitude in -60.0..60.0,
            bearing in (-1.0..1.0, -1.0..1.0), reach in 0.0..6f64, square: bool,
        ) {
            let reach = 10f64.powf(reach);
            let shape =
                if square { Shape::Box { width: reach, height: reach * 2.0 } } else { Shape::Circle { radius: reach } };
            let area = Area { center: point(longitude, latitude), shape };
            let degrees = reach / 100_000.0;
            let place = stored(point(longitude + bearing.0 * degrees, latitude + bearing.1 * degrees));
            if area.distance_within(place).is_some() {
                let score = place.score() as u64;
                prop_assert!(area.scores().iter().any(|range| range.contains(&score)));
            }
        }

        #[test]
        fn ranges_do_not_overlap(center in any_point(), reach in 0.0..9f64) {
            let area = Area { center, shape: Shape::Circle { radius: 10f64.powf(reach) } };
            let mut ranges = area.scores();
            prop_assert!(ranges.len() <= 9);
            ranges.sort_by_key(|range| range.start);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
