//! Provided receive buffers: the kernel takes one for each read, and gets it back when the bytes
//! are dropped.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use io_uring::types::BufRingEntry;

/// A memory mapping; unmapped when dropped.
pub(super) struct Mapping {
    address: *mut u8,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Self> {
        Self::map(bytes, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    /// The first bytes of what a descriptor shares.
    pub(super) fn shared(descriptor: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        Self::map(bytes, libc::MAP_SHARED | libc::MAP_POPULATE, descriptor.as_raw_fd())
    }

    fn map(bytes: usize, flags: libc::c_int, descriptor: RawFd) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let address =
            unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, descriptor, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { address: address.cast(), bytes })
    }

    /// The word at an offset in bytes; `None` if the mapping does not have it.
    pub(super) fn word(&self, offset: u32) -> Option<*const AtomicU32> {
        let offset = offset as usize;
        let fits = offset.is_multiple_of(4) && offset < self.bytes && self.bytes - offset >= 4;
        // SAFETY: the offset is inside the mapping.
        fits.then(|| unsafe { self.address.add(offset) }.cast_const().cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: address and length are the mapping's own, and nothing borrows it any more.
        unsafe { libc::munmap(self.address.cast(), self.bytes) };
    }
}

/// The provided receive buffers: a ring of descriptors that the kernel takes from, and the bytes.
pub(super) struct Buffers {
    descriptors: Mapping,
    bytes: Mapping,
    count: u16,
    buffer_bytes: u32,
    tail: Cell<u16>,
}

impl Buffers {
    /// Creates buffers that are not yet offered to the kernel. `count` must be a power of two,
    /// because the kernel masks the index; it rejects other counts with EINVAL.
    pub(super) fn new(count: u16, buffer_bytes: u32) -> io::Result<Self> {
        if !count.is_power_of_two() || buffer_bytes == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Buffers {
            descriptors: Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?,
            bytes: Mapping::new(usize::from(count) * buffer_bytes as usize)?,
            count,
            buffer_bytes,
            tail: Cell::new(0),
        })
    }

    /// Bytes of each buffer.
    pub(super) fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// Number of buffers.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Address of the descriptors, for the registration.
    pub(super) fn descriptors(&self) -> u64 {
        self.descriptors.address as u64
    }

    /// The buffer that came with a read of `length` bytes; `None`: there is no such buffer.
    ///
    /// # Safety
    ///
    /// The kernel has just given this buffer away, and this is the one call that says so.
    pub(super) unsafe fn taken(
        buffers: &Rc<Self>,
        id: u16,
        length: usize,
    ) -> Option<ReceivedBytes> {
        let length = length.min(buffers.buffer_bytes as usize);
        (id < buffers.count).then(|| ReceivedBytes { buffers: buffers.clone(), id, length })
    }

    fn address(&self, id: u16) -> *mut u8 {
        let id = usize::from(id & (self.count - 1));
        // SAFETY: the masked index is below the count, so the result is inside the mapping.
        unsafe { self.bytes.address.add(id * self.buffer_bytes as usize) }
    }

    /// Offers a buffer to the kernel.
    ///
    /// # Safety
    ///
    /// Nothing refers to the bytes of the buffer, and the kernel does not have it.
    pub(super) unsafe fn offer(&self, id: u16) {
        let address = self.address(id) as u64;
        let entries: *mut BufRingEntry = self.descriptors.address.cast();
        let tail = self.tail.get();
        // SAFETY: the masked index is inside the mapping; the kernel reads an entry only after
        // the tail store below has published it. `Buffers` is not `Sync`, so no other thread
        // writes here.
        unsafe {
            let entry = &mut *entries.add(usize::from(tail & (self.count - 1)));
            entry.set_addr(address);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(id);
        }
        self.tail.set(tail.wrapping_add(1));
        // SAFETY: the tail field lies in the first entry of the page-aligned mapping, is only
        // ever accessed as an atomic by us, and the kernel only reads it.
        let shared = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        shared.store(self.tail.get(), Ordering::Release);
    }
}

/// Bytes of a read. The kernel gets their buffer back when they are dropped.
pub struct ReceivedBytes {
    buffers: Rc<Buffers>,
    id: u16,
    length: usize,
}

impl Deref for ReceivedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel gave the buffer away (see `Buffers::taken`) and does not touch it
        // until `drop` offers it again. The length is at most the buffer's.
        unsafe { std::slice::from_raw_parts(self.buffers.address(self.id), self.length) }
    }
}

impl DerefMut for ReceivedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; there is one `ReceivedBytes` for each buffer that was given away.
        unsafe { std::slice::from_raw_parts_mut(self.buffers.address(self.id), self.length) }
    }
}

impl fmt::Debug for ReceivedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in buffer {}", self.length, self.id)
    }
}

impl Drop for ReceivedBytes {
    fn drop(&mut self) {
        // SAFETY: the borrows of the bytes have ended with `self`, and the kernel gave the buffer
        // away to this value alone.
        unsafe { self.buffers.offer(self.id) };
    }
}
