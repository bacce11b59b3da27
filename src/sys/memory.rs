//! Anonymous memory mappings, and cache prefetch.

use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

/// Types for which all-zero bytes are a valid value and which own nothing.
///
/// # Safety
/// The implementor must be inhabited by the all-zero bit pattern, and must not need dropping.
pub unsafe trait Zeroable: Copy {}

// SAFETY: zero is a value of every integer, and integers own nothing.
unsafe impl Zeroable for u8 {}

/// A private, anonymous, zero-filled mapping, used as a slice. The kernel provides pages when they are first touched.
pub struct Mapping<T: Zeroable> {
    at: NonNull<T>,
    length: usize,
}

// SAFETY: the mapping is owned like a `Box<[T]>`; nothing in it is tied to the thread that made it.
unsafe impl<T: Zeroable + Send> Send for Mapping<T> {}

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
        let at = NonNull::new(at.cast()).expect("mmap never returns page 0 unless asked to");
        Ok(Self { at, length })
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

impl<T: Zeroable> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and nothing borrows it any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.length * size_of::<T>()) };
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
