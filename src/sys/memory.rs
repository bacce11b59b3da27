//! Anonymous memory mappings, and cache prefetch.

use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;

/// Types for which all-zero bytes are a valid value and which own nothing.
///
/// # Safety
/// The implementor must be inhabited by the all-zero bit pattern, and must not need dropping.
pub unsafe trait Zeroable: Copy {}

// SAFETY: zero is a value of every integer, and integers own nothing.
unsafe impl Zeroable for u8 {}

/// Mapped memory, which is unmapped when its last user is gone.
struct Mapped {
    at: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the range is owned, and nothing in it is tied to a thread. A `Mapped` by itself gives no access to it.
unsafe impl Send for Mapped {}
// SAFETY: as above: shared references give no access either.
unsafe impl Sync for Mapped {}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `Mapping::new`, and nothing borrows it or is allowed to use it any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.bytes) };
    }
}

/// A private, anonymous, zero-filled mapping, used as a slice. The kernel provides pages when they are first touched.
pub struct Mapping<T: Zeroable> {
    at: NonNull<T>,
    length: usize,
    mapped: Arc<Mapped>,
}

// SAFETY: the mapping is owned like a `Box<[T]>`; nothing in it is tied to the thread that made it.
unsafe impl<T: Zeroable + Send> Send for Mapping<T> {}

/// Keeps a mapping mapped while the kernel reads or writes ranges of it, also when its owner is dropped. The owner does
/// not use ranges that the kernel writes, and does not write those that it reads, until the operation is over.
#[derive(Clone)]
pub struct Lease {
    mapped: Arc<Mapped>,
}

impl Lease {
    /// The address of a range of the mapping, for an operation of the kernel.
    pub fn address(&self, range: &Range<usize>) -> *mut u8 {
        assert!(range.start <= range.end && range.end <= self.mapped.bytes, "a range outside of the mapping");
        // SAFETY: the offset is within the mapping.
        unsafe { self.mapped.at.as_ptr().add(range.start) }
    }

    /// A copy of a range that is leased for reading: what the kernel does, for the simulator.
    #[cfg(any(test, feature = "sim"))]
    pub fn read(&self, range: &Range<usize>) -> Vec<u8> {
        let mut bytes = vec![0; range.len()];
        // SAFETY: the range is mapped, and nobody writes to it while it is leased for reading.
        unsafe { std::ptr::copy_nonoverlapping(self.address(range), bytes.as_mut_ptr(), range.len()) };
        bytes
    }

    /// Fills the start of a range that is leased for writing: what the kernel does, for the simulator.
    #[cfg(any(test, feature = "sim"))]
    pub fn write(&self, range: &Range<usize>, bytes: &[u8]) {
        assert!(bytes.len() <= range.len(), "more bytes than the range has");
        // SAFETY: the range is mapped, and nobody uses it while it is leased for writing.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address(range), bytes.len()) };
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Lease({} bytes)", self.mapped.bytes)
    }
}

impl<T: Zeroable> Mapping<T> {
    /// Maps room for `length` values, which must not be 0.
    ///
    /// # Errors
    /// The error of mmap(2): usually ENOMEM, when the address space or the overcommit limit does not suffice.
    pub fn new(length: usize) -> io::Result<Self> {
        let bytes = length.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        assert!(bytes > 0, "an empty mapping");
        const { assert!(align_of::<T>() <= 4096, "mappings are page-aligned, no more") };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no memory that exists.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at: NonNull<u8> = NonNull::new(at.cast()).expect("mmap never returns page 0 unless asked to");
        Ok(Self { at: at.cast(), length, mapped: Arc::new(Mapped { at, bytes }) })
    }

    /// Lets the kernel use ranges of the mapping.
    pub fn lease(&self) -> Lease {
        Lease { mapped: Arc::clone(&self.mapped) }
    }

    /// Advises the kernel to back the mapping with huge pages. A refusal only affects speed.
    ///
    /// # Errors
    /// The error of madvise(2): EINVAL if the kernel was built without huge pages.
    pub fn advise_huge_pages(&self) -> io::Result<()> {
        // SAFETY: the range is ours, and this advice changes no contents.
        let done = unsafe { libc::madvise(self.at.as_ptr().cast(), self.length * size_of::<T>(), libc::MADV_HUGEPAGE) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Gives the memory of some values back to the system: they are zero again, and the kernel provides the pages anew
    /// when they are next touched. The range must begin and end at pages.
    ///
    /// # Errors The error of madvise(2), with all values as they were: EINVAL if the range does not consist of whole
    /// pages, or if they are locked.
    pub fn release(&mut self, values: Range<usize>) -> io::Result<()> {
        let values = &mut self[values];
        let bytes = size_of_val(values);
        // SAFETY: the range is ours and exclusively borrowed. The mapping is private and anonymous, so the range reads
        // as zero afterwards, which is a value of T that owns nothing.
        let done = unsafe { libc::madvise(values.as_mut_ptr().cast(), bytes, libc::MADV_DONTNEED) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The address of the first value, for memory that the kernel writes to.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.at.as_ptr()
    }
}

impl<T: Zeroable> Deref for Mapping<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `length` values from `at` are mapped, initialised (zero is a value of T) and borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.length) }
    }
}

impl<T: Zeroable> DerefMut for Mapping<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`; `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.length) }
    }
}

/// Has freed memory of 256 KiB and more returned to the system at once. By default, the C library raises that bound to
/// up to 32 MiB as it goes, and keeps what was freed below it.
pub fn return_large_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
    }
}

/// Returns memory that the allocator has free to the system.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it changes nothing that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Prefetches the cache line at `at`. A hint: it only affects timing.
#[inline(always)]
pub fn prefetch<T>(at: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no architectural effect, whatever the address; this one is of a live reference besides.
    unsafe {
        std::arch::x86_64::_mm_prefetch(std::ptr::from_ref(at).cast(), std::arch::x86_64::_MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    // SAFETY: as for u8.
    unsafe impl Zeroable for u64 {}

    #[test]
    fn a_mapping_is_zero_filled_and_writable() {
        let mut words = Mapping::<u64>::new(1000).expect("8 kB");
        assert!(words.iter().all(|&w| w == 0));
        words[999] = 7;
        assert_eq!(words[999], 7);
    }

    #[test]
    fn a_lease_outlives_the_mapping() {
        let mut bytes = Mapping::<u8>::new(4096).expect("a page");
        bytes[4000..4004].copy_from_slice(b"abcd");
        let lease = bytes.lease();
        drop(bytes);
        assert_eq!(lease.read(&(4001..4003)), b"bc");
        lease.write(&(4001..4003), b"x");
        assert_eq!(lease.read(&(4000..4004)), b"axcd");
    }

    #[test]
    fn released_memory_is_zero_again_and_its_neighbours_are_not() {
        let mut bytes = Mapping::<u8>::new(3 * 65_536).expect("192 KiB");
        bytes.fill(7);
        bytes.release(65_536..131_072).expect("whole pages, whatever their size");
        for (part, byte) in [(0, 7), (1, 0), (2, 7)] {
            assert!(bytes[part * 65_536..][..65_536].iter().all(|&b| b == byte), "part {part}");
        }
        bytes[100_000] = 1;
        assert!(bytes.release(1..100).is_err(), "no whole pages");
        assert_eq!((bytes[1], bytes[100_000]), (7, 1));
    }

    #[test]
    fn too_much_is_an_error() {
        assert!(Mapping::<u64>::new(usize::MAX).is_err());
        assert!(Mapping::<u64>::new(1 << 58).is_err());
    }
}
