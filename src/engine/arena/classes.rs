//! Slab classes: the chunk sizes that a page can be cut into.
//!
//! There is a class for every granule up to 256 bytes, then there are sixteen classes per doubling up to the block
//! size. Above 256 bytes each size is rounded up to the largest (a multiple of the granule) of which as many fit into a
//! page, so that no space is left at its end: 15 chunks of 1,092 bytes instead of 15 of 1,088.

use super::GRANULE_BYTES;

/// Smallest chunk: any item's header fits, and so does reading one at its full width.
const CHUNK_BYTES_MIN: usize = 16;
/// Up to this size there is a class for every multiple of the granule.
const FINE_BYTES_MAX: usize = 256;
/// Classes per doubling above that.
const CLASSES_PER_DOUBLING: usize = 16;
/// Largest chunk; also the size of the blocks that long values are cut into.
pub(in crate::engine) const CHUNK_BYTES_MAX: usize = 4096;

/// Number of a slab class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Class(pub(super) u8);

/// One slab class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Bytes of a chunk.
    pub(super) bytes: u32,
    /// Chunks in a page.
    pub(super) chunks: u16,
    /// Evacuation may move its chunks: they hold items or parts of items, and exactly one owner refers to each.
    pub(super) moves: bool,
}

/// The classes of an arena.
#[derive(Debug)]
pub(super) struct Classes {
    sizes: Vec<Size>,
    /// Class by size in granules.
    by_granules: Box<[u8]>,
}

impl Classes {
    /// The classes for pages of `page_bytes`, followed by one for each of `others`, whose chunks are not moved.
    pub(super) fn new(page_bytes: usize, others: &[usize]) -> Self {
        let mut sizes: Vec<usize> = (CHUNK_BYTES_MIN..FINE_BYTES_MAX).step_by(GRANULE_BYTES).collect();
        let mut base = FINE_BYTES_MAX;
        while base < CHUNK_BYTES_MAX {
            for step in 0..CLASSES_PER_DOUBLING {
                let bytes = base + base / CLASSES_PER_DOUBLING * step;
                let fitted = page_bytes / (page_bytes / bytes) / GRANULE_BYTES * GRANULE_BYTES;
                if fitted < CHUNK_BYTES_MAX && sizes.last().is_some_and(|&last| fitted > last) {
                    sizes.push(fitted);
                }
            }
            base *= 2;
        }
        sizes.push(CHUNK_BYTES_MAX);

        let size = |bytes: usize, moves| Size { bytes: bytes as u32, chunks: (page_bytes / bytes) as u16, moves };
        let mut by_granules = Vec::with_capacity(CHUNK_BYTES_MAX / GRANULE_BYTES + 1);
        for granules in 0..=CHUNK_BYTES_MAX / GRANULE_BYTES {
            by_granules.push(sizes.partition_point(|&bytes| bytes < granules * GRANULE_BYTES) as u8);
        }
        let own = sizes.iter().map(|&bytes| size(bytes, true));
        let sizes: Vec<Size> = own.chain(others.iter().map(|&bytes| size(bytes, false))).collect();
        assert!(sizes.len() <= usize::from(u8::MAX), "{} classes", sizes.len());
        Self { sizes, by_granules: by_granules.into() }
    }

    /// The smallest class that `bytes` fit into.
    #[inline]
    pub(super) fn of(&self, bytes: usize) -> Class {
        Class(self.by_granules[bytes.div_ceil(GRANULE_BYTES)])
    }

    /// The class of the `n`-th of the others.
    pub(super) fn other(&self, n: usize) -> Class {
        let own = self.sizes.iter().filter(|size| size.moves).count();
        Class((own + n) as u8)
    }

    #[inline]
    pub(super) fn size(&self, class: Class) -> Size {
        self.sizes[usize::from(class.0)]
    }

    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = (Class, Size)> {
        self.sizes.iter().enumerate().map(|(n, &size)| (Class(n as u8), size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_the_smallest_class_that_holds_it() {
        for page_bytes in [16 << 10, 64 << 10] {
            let classes = Classes::new(page_bytes, &[64, 256]);
            for bytes in 1..=CHUNK_BYTES_MAX {
                let class = classes.of(bytes);
                assert!(classes.size(class).bytes as usize >= bytes);
                assert!(class.0 == 0 || (classes.sizes[usize::from(class.0) - 1].bytes as usize) < bytes);
            }
            for (_, size) in classes.all() {
                let used = size.bytes as usize * usize::from(size.chunks);
                let waste_max = (usize::from(size.chunks) * GRANULE_BYTES).max(size.bytes as usize);
                assert!(used <= page_bytes && page_bytes - used < waste_max, "{size:?}");
                assert!((size.bytes as usize).is_multiple_of(GRANULE_BYTES));
            }
            assert_eq!(classes.size(classes.other(1)).bytes, 256);
            assert!(!classes.size(classes.other(0)).moves);
        }
    }

    #[test]
    fn small_items_lose_at_most_a_granule_and_larger_ones_a_sixteenth() {
        let classes = Classes::new(16 << 10, &[]);
        let mut previous = 12;
        for (_, size) in classes.all() {
            let gap = size.bytes - previous;
            assert!(gap <= 16 || gap <= size.bytes / 4, "{previous} to {}", size.bytes);
            if size.bytes < 1024 {
                assert!(gap <= 4.max(size.bytes / 12), "{previous} to {}", size.bytes);
            }
            previous = size.bytes;
        }
    }
}
