//! Test vectors of a real Redis, a model with one byte per register, and malformed sketches.

use super::*;
use proptest::prelude::*;

fn sketch_of<'a>(elements: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut sketch = create();
    for element in elements {
        add(&mut sketch, element.as_bytes()).expect("a sketch");
    }
    sketch
}

fn registers_of(sketch: &[u8]) -> Box<[u8; REGISTERS]> {
    let mut registers = Box::new([0; REGISTERS]);
    merge(&mut registers, sketch).expect("a sketch");
    registers
}

/// A sketch with these bytes after a header.
fn with_body(encoding: u8, body: &[u8]) -> Vec<u8> {
    let mut sketch = create();
    sketch.truncate(HEADER_BYTES);
    sketch[ENCODING_AT] = encoding;
    sketch[COUNT.end - 1] = COUNT_STALE;
    sketch.extend_from_slice(body);
    sketch
}

/// PFADD h a b c d e; GET h; PFCOUNT h; GET h, on Redis 7.0.15.
#[test]
fn bytes_are_those_of_redis() {
    let mut sketch = sketch_of(["a", "b", "c", "d", "e"]);
    let body = b"\\{\x80Dv\x80P\xb1\x84I\x8c\x80Bm\x80BZ";
    assert_eq!(sketch, with_body(SPARSE, body));
    assert_eq!(cached_count(&sketch), None);
    assert_eq!(count(&mut sketch), Ok(5));
    assert_eq!(&sketch[COUNT], [5, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(cached_count(&sketch), Some(5));
    assert_eq!(add(&mut sketch, b"a"), Ok(false));
    assert_eq!(cached_count(&sketch), Some(5));
    assert_eq!(add(&mut sketch, b"f"), Ok(true));
    assert_eq!(cached_count(&sketch), None);
}

/// Estimates, lengths and byte sums of sketches of the numbers from 0 on, on Redis 7.0.15.
#[test]
fn estimates_are_those_of_redis() {
    let mut sketch = create();
    let mut added = 0;
    for (elements, estimated, length, sum) in
        [(100, 100, 287, 28_189), (1_000, 1_001, 1_923, 143_139), (10_000, 9_987, 12_304, 269_691)]
    {
        for number in added..elements {
            add(&mut sketch, number.to_string().as_bytes()).expect("a sketch");
        }
        added = elements;
        assert_eq!(count(&mut sketch), Ok(estimated));
        assert_eq!(sketch.len(), length);
        assert_eq!(sketch.iter().map(|&byte| u64::from(byte)).sum::<u64>(), sum);
    }
}

#[test]
fn new_ones_are_empty() {
    let mut sketch = create();
    assert_eq!(sketch, b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\0\x7f\xff");
    assert_eq!(cached_count(&sketch), Some(0));
    sketch[COUNT.end - 1] |= COUNT_STALE;
    assert_eq!(count(&mut sketch), Ok(0));
    assert_eq!(*registers_of(&sketch), [0; REGISTERS]);
}

/// PFMERGE of sparse sketches stays sparse; a dense one makes the result dense.
#[test]
fn unions() {
    let left = sketch_of(["a", "b", "c"]);
    let right = sketch_of(["c", "d"]);
    let mut registers = registers_of(&left);
    merge(&mut registers, &right).expect("a sketch");
    assert_eq!(estimate(&registers), 4);

    let mut both = sketch_of(["e"]);
    store(&mut both, &registers, false).expect("a sketch");
    assert!(!is_dense(&both));
    assert_eq!(count(&mut both), Ok(5));
    assert_eq!(both[HEADER_BYTES..], sketch_of(["a", "b", "c", "d", "e"])[HEADER_BYTES..]);

    let mut dense = create();
    store(&mut dense, &registers, true).expect("a sketch");
    assert!(is_dense(&dense));
    assert_eq!(registers_of(&dense), registers);
    assert_eq!(count(&mut dense), Ok(4));
}

/// When a register exceeds 32, and when the sketch would exceed 3,000 bytes.
#[test]
fn sparse_becomes_dense() {
    let mut sketch = create();
    assert_eq!(set(&mut sketch, 7, 32), Ok(true));
    assert!(!is_dense(&sketch));
    assert_eq!(set(&mut sketch, REGISTERS - 1, 33), Ok(true));
    assert!(is_dense(&sketch));
    assert_eq!((registers_of(&sketch)[7], registers_of(&sketch)[REGISTERS - 1]), (32, 33));

    let mut sketch = create();
    let mut longest = 0;
    for element in 0.. {
        add(&mut sketch, format!("e{element}").as_bytes()).expect("a sketch");
        if is_dense(&sketch) {
            break;
        }
        longest = sketch.len();
    }
    assert!((2_998..=3_000).contains(&longest), "{longest}");
    assert_eq!(sketch.len(), DENSE_BYTES);
}

#[test]
fn what_is_no_sketch() {
    let mut short = create();
    short.truncate(15);
    let mut magic = create();
    magic[0] = b'h';
    for bytes in [b"".to_vec(), short, magic, with_body(2, &sparse::EMPTY), with_body(DENSE, &[0; 100])] {
        assert!(!is_valid(&bytes) && !is_dense(&bytes));
        assert_eq!(cached_count(&bytes), None);
        assert_eq!(add(&mut bytes.clone(), b"x"), Err(Corrupt));
        assert_eq!(count(&mut bytes.clone()), Err(Corrupt));
        assert_eq!(merge(&mut [0; REGISTERS], &bytes), Err(Corrupt));
        assert_eq!(store(&mut bytes.clone(), &[0; REGISTERS], false), Err(Corrupt));
    }
}

/// Too few registers, too many, half a run, and a run of values beyond the end.
#[test]
fn sparse_registers_that_are_not_16384() {
    for body in [&b""[..], b"\x7f\xfe", b"\x7f\xff\x00", b"\x7f\xff\x80", b"\x7f", b"\x7f\xfd\x87"] {
        let sketch = with_body(SPARSE, body);
        assert!(is_valid(&sketch));
        assert_eq!(count(&mut sketch.clone()), Err(Corrupt), "{body:?}");
        assert_eq!(merge(&mut [0; REGISTERS], &sketch), Err(Corrupt), "{body:?}");
        assert_eq!(make_dense(&mut sketch.clone()), Err(Corrupt), "{body:?}");
    }
    assert_eq!(add(&mut with_body(SPARSE, b"\x00"), b"x"), Err(Corrupt));
}

proptest! {
    /// Registers raised in any order and either encoding equal those of the model, and the sparse runs cover all of
    /// them.
    #[test]
    fn registers_are_those_of_a_model(
        raised in prop::collection::vec((prop_oneof![0..REGISTERS, 0..40usize], 1u8..34), 0..300),
        dense: bool,
    ) {
        let mut model = [0; REGISTERS];
        let mut sketch = create();
        store(&mut sketch, &model, dense).expect("a sketch");
        for (index, value) in raised {
            let changed = value > model[index];
            model[index] = model[index].max(value);
            prop_assert_eq!(set(&mut sketch, index, value), Ok(changed));
        }
        prop_assert_eq!(*registers_of(&sketch), model);
        prop_assert_eq!(count(&mut sketch), Ok(estimate(&model)));
    }

    #[test]
    fn any_bytes_are_fine(body in prop::collection::vec(any::<u8>(), 0..300), elements: Vec<Vec<u8>>) {
        let mut sketch = with_body(SPARSE, &body);
        for element in elements {
            let _ = add(&mut sketch, &element);
        }
        let _ = count(&mut sketch.clone());
        let _ = merge(&mut [0; REGISTERS], &sketch);
        let _ = store(&mut sketch, &[40; REGISTERS], false);
    }

    #[test]
    fn any_dense_registers_are_fine(byte: u8, element: Vec<u8>) {
        let mut sketch = with_body(DENSE, &vec![byte; DENSE_BYTES - HEADER_BYTES]);
        prop_assert!(add(&mut sketch, &element).is_ok());
        prop_assert!(count(&mut sketch).is_ok());
    }
}
