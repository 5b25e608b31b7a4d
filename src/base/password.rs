//! Passwords as argon2 hashes: made by a command, kept in the configuration, verified at a login.
//!
//! Owns the memory that verifications use. The invariant: a hash that [`PasswordHash::parse`]
//! accepts costs at most [`MEMORY_MAX`] and a few seconds to verify.

use std::sync::{Mutex, MutexGuard, PoisonError};

use argon2::password_hash::{self, Output, PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, Version};

use crate::base::sys;

/// Maximum memory of one verification, in KiB.
const MEMORY_MAX: u32 = 256 * 1024;
/// Maximum memory in KiB times passes over it: about two seconds of a slow processor.
const WORK_MAX: u64 = 2 * 1024 * 1024;
/// Maximum memory that a verification leaves for the next one, in KiB. The allocator returns larger
/// allocations to the system by itself.
const KEPT_MAX: usize = 32 * 1024;
/// Memory for the next verifications, as much as ran at once. With memory from the allocator, every
/// thread that ever verified a password would keep some.
static MEMORY: Mutex<Vec<Vec<Block>>> = Mutex::new(Vec::new());
/// Maximum length of a password in bytes.
pub const PASSWORD_MAX: usize = 1024;

/// A hash in the form `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`.
#[derive(Clone)]
pub struct PasswordHash(Box<str>);

/// Why a text is not the hash of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFault {
    /// The text is not an argon2 hash.
    Form,
    /// The hash takes too much memory or time to verify.
    Cost,
}

/// The hash of a password with a random salt.
///
/// # Errors
/// The system has no random bytes, or the password is too long.
pub fn hash(password: &[u8]) -> Result<String, String> {
    if password.len() > PASSWORD_MAX {
        return Err(format!("the password is longer than {PASSWORD_MAX} bytes"));
    }
    let salt = sys::random::<16>().map_err(|error| format!("no random bytes: {error}"))?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| error.to_string())?;
    let hash = Argon2::default().hash_password(password, &salt);
    hash.map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

impl PasswordHash {
    /// Reads a hash from the configuration.
    pub fn parse(text: &str) -> Result<Self, HashFault> {
        let hash = password_hash::PasswordHash::new(text).map_err(|_| HashFault::Form)?;
        let is_argon2 = hash.algorithm.as_str().starts_with("argon2");
        if !is_argon2 || hash.hash.is_none() || hash.salt.is_none() {
            return Err(HashFault::Form);
        }
        let params = Params::try_from(&hash).map_err(|_| HashFault::Form)?;
        let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
        if params.m_cost() > MEMORY_MAX || work > WORK_MAX {
            return Err(HashFault::Cost);
        }
        Ok(PasswordHash(text.into()))
    }

    /// Whether the hash is that of this password. Takes tens of milliseconds and the memory that
    /// the hash names.
    pub fn verifies(&self, password: &[u8]) -> bool {
        let hash = password_hash::PasswordHash::new(&self.0);
        hash.is_ok_and(|hash| verify(password, &hash).is_ok_and(|verifies| verifies))
    }
}

fn verify(password: &[u8], hash: &password_hash::PasswordHash<'_>) -> password_hash::Result<bool> {
    let algorithm = Algorithm::try_from(hash.algorithm)?;
    let version = hash.version.map_or(Ok(Version::default()), Version::try_from)?;
    let params = Params::try_from(hash)?;
    let (Some(salt), Some(expected)) = (hash.salt, hash.hash) else { return Ok(false) };
    let mut buffer = [0; 64];
    let salt = salt.decode_b64(&mut buffer)?;
    let blocks = params.block_count();
    let argon2 = Argon2::new(algorithm, version, params);
    let mut memory = kept_memory().pop().unwrap_or_default();
    memory.resize(blocks, Block::new());
    let output = Output::init_with(expected.len(), |output| {
        let done = argon2.hash_password_into_with_memory(password, salt, output, &mut memory);
        done.map_err(password_hash::Error::from)
    });
    // It depends on the password.
    memory.fill(Block::new());
    if memory.len() <= KEPT_MAX {
        kept_memory().push(memory);
    }
    // The library compares in constant time.
    Ok(output? == expected)
}

fn kept_memory() -> MutexGuard<'static, Vec<Vec<Block>>> {
    // A panic elsewhere leaves whole elements.
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_verifies_its_own_password_only() {
        let (one, other) = (hash(b"hunter2").unwrap(), hash(b"hunter2").unwrap());
        assert_ne!(one, other, "the salt is random");
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        let parsed = PasswordHash::parse(&one).unwrap();
        assert!(parsed.verifies(b"hunter2"));
        assert!(!parsed.verifies(b"hunter3") && !parsed.verifies(b""));
        assert!(hash(&[b'x'; PASSWORD_MAX + 1]).is_err());
    }

    #[test]
    fn hashes_of_other_programs_are_accepted_within_the_cost() {
        // Made by the reference program: echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1 -e
        let reference = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ\
                         $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let parsed = PasswordHash::parse(reference).unwrap();
        assert!(parsed.verifies(b"password"));
        let fault = |text: &str| PasswordHash::parse(text).err();
        assert_eq!(fault(&reference.replace("m=65536", "m=999999")), Some(HashFault::Cost));
        assert_eq!(fault(&reference.replace("t=2", "t=40")), Some(HashFault::Cost));
        for text in [
            "",
            "hunter2",
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ",
            "$argon2id$v=19$m=65536,t=0,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8",
            "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW",
        ] {
            assert_eq!(fault(text), Some(HashFault::Form), "{text}");
        }
    }
}
