//! Encryption of entries in Redis.
//!
//! AES-256-GCM with a random nonce: 4 bytes key name, 12 bytes nonce, ciphertext, 16 bytes tag. The key name allows
//! rotation while entries under the older key exist. The Redis key and the generations are authenticated with the entry
//! (they are not secret, but entries must not be interchangeable).
//!
//! With random nonces, a key is good for 2^32 entries (NIST SP 800-38D, section 8.3): more than a year at 100 a second.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use file_fingerprint::{ReloadStats, WatchedFiles};
use hmac::{KeyInit, Mac};
use parking_lot::{Mutex, RwLock};
use secrecy::zeroize::Zeroizing;
use sha2::{Digest, Sha256};

use super::key::MacKey;
use crate::secret::{SecretError, SecretSource};

const KEY_LEN: usize = 32;
const NAME_LEN: usize = 4;
const TAG_LEN: usize = 16;

/// Keys that encrypt entries in Redis. Clones share them.
#[derive(Clone)]
pub struct Encryption(Arc<Shared>);

struct Shared {
    source: SecretSource,
    keys: RwLock<Arc<Keys>>,
    watched: Mutex<WatchedFiles>,
}

struct Keys {
    current: Arc<EncryptionKey>,
    /// Used for decryption only.
    older: Vec<Arc<EncryptionKey>>,
}

struct EncryptionKey {
    name: [u8; NAME_LEN],
    key: RandomizedNonceKey,
    /// Derived from the key, for keyed hashes.
    mac: MacKey,
}

/// Number of replaced keys kept for decryption, besides those given at the start.
const MAX_REPLACED: usize = 4;

/// An unusable encryption key. The text does not contain the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncryptionError {
    /// The key cannot be read.
    #[error(transparent)]
    Unreadable(#[from] SecretError),
    /// Not a valid key.
    #[error(
        "{origin}: not a 32-byte key in hex (64 digits) or base64 (44 characters); \
         generate one with `openssl rand -hex 32`"
    )]
    NoKey {
        /// Source of the key.
        origin: String,
    },
}

impl Encryption {
    /// Number of bytes that encryption adds.
    pub(super) const OVERHEAD: usize = NAME_LEN + NONCE_LEN + TAG_LEN;

    /// Reads the keys: 32 bytes each, in hex or base64.
    ///
    /// `current` encrypts new entries; `older` keys only decrypt. To rotate, first add the new key to all processes as
    /// an older one.
    ///
    /// Blocks on reading small files.
    ///
    /// # Errors
    ///
    /// Returns an error if a key cannot be read or is invalid.
    ///
    /// ```
    /// use clerk_client::cache::Encryption;
    /// use clerk_client::secret::{Secret, SecretSource};
    ///
    /// let key = SecretSource::Inline(Secret::new("00112233445566778899aabbccddeeff".repeat(2)));
    /// assert!(Encryption::new(&key, &[]).is_ok());
    /// ```
    pub fn new(current: &SecretSource, older: &[SecretSource]) -> Result<Self, EncryptionError> {
        Self::counting(current, older, Arc::default())
    }

    /// Same as [`new`](Self::new), counting reads of the current key in `stats`.
    ///
    /// # Errors
    ///
    /// Same as [`new`](Self::new).
    pub fn counting(
        current: &SecretSource,
        older: &[SecretSource],
        stats: Arc<ReloadStats>,
    ) -> Result<Self, EncryptionError> {
        let mut watched = WatchedFiles::new(stats);
        let key = watched.attempt(current.file(), || EncryptionKey::read(current))?;
        let older = older.iter().map(|source| EncryptionKey::read(source).map(Arc::new)).collect::<Result<_, _>>()?;
        let keys = RwLock::new(Arc::new(Keys { current: Arc::new(key), older }));
        Ok(Self(Arc::new(Shared { source: current.clone(), keys, watched: Mutex::new(watched) })))
    }

    /// Reads the current key again if its file has changed. Returns whether the key changed.
    ///
    /// The new key encrypts new entries; the previous key still decrypts. If the new key is unusable, the previous one
    /// stays in place and each call tries again. Blocks on checking the file.
    ///
    /// # Errors
    ///
    /// Returns why the key is unusable, once per reason.
    pub fn refresh(&self) -> Result<bool, EncryptionError> {
        let Shared { source, keys, watched } = &*self.0;
        let mut watched = watched.lock();
        if source.file().is_none() || !watched.is_outdated() {
            return Ok(false);
        }
        match watched.attempt(source.file(), || EncryptionKey::read(source)) {
            Ok(key) => {
                if watched.is_recovery() {
                    tracing::info!(%source, "encryption key is readable again");
                }
                let mut keys = keys.write();
                if keys.current.name == key.name {
                    return Ok(false);
                }
                let mut older = vec![Arc::clone(&keys.current)];
                older.extend(keys.older.iter().filter(|known| known.name != key.name).map(Arc::clone));
                older.truncate(MAX_REPLACED.max(keys.older.len()));
                *keys = Arc::new(Keys { current: Arc::new(key), older });
                Ok(true)
            }
            Err(error) if watched.is_new_failure() => Err(error),
            Err(_) => Ok(false),
        }
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.0.keys.read())
    }

    /// The key for keyed hashes. It changes with the current key.
    pub(super) fn mac(&self) -> MacKey {
        self.keys().current.mac.clone()
    }

    /// Encrypts the content. `None` if the system has no randomness available.
    pub(super) fn encrypt(&self, mut content: Vec<u8>, context: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys();
        let nonce = keys.current.key.seal_in_place_append_tag(Aad::from(context), &mut content).ok()?;
        Some([&keys.current.name[..], nonce.as_ref(), &content].concat())
    }

    /// Decrypts content that was encrypted with one of the keys in the same context.
    pub(super) fn decrypt(&self, sealed: &[u8], context: &[u8]) -> Option<Bytes> {
        let (name, sealed) = sealed.split_at_checked(NAME_LEN)?;
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let keys = self.keys();
        let key = [&keys.current].into_iter().chain(&keys.older).find(|key| key.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut content = sealed.to_vec();
        let length = key.key.open_in_place(nonce, Aad::from(context), &mut content).ok()?.len();
        content.truncate(length);
        Some(content.into())
    }
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption").field("keys", &(1 + self.keys().older.len())).finish()
    }
}

impl EncryptionKey {
    fn read(source: &SecretSource) -> Result<Self, EncryptionError> {
        let text = source.read()?;
        let no_key = || EncryptionError::NoKey { origin: source.to_string() };
        let bytes = decode(text.expose()).ok_or_else(no_key)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes[..]).map_err(|_| no_key())?;
        let hash = Sha256::new().chain_update(b"clerk-exporter: name of a sealing key").chain_update(&bytes[..]);
        let mut name = [0; NAME_LEN];
        name.copy_from_slice(&hash.finalize()[..NAME_LEN]);
        // One key for two purposes would be one too few.
        let derived = MacKey::new_from_slice(&bytes[..]).map_err(|_| no_key())?;
        let derived = derived.chain_update(b"clerk-exporter: keys of requests with secrets").finalize().into_bytes();
        let mac = MacKey::new_from_slice(&derived).map_err(|_| no_key())?;
        Ok(Self { name, key, mac })
    }
}

fn decode(text: &str) -> Option<Zeroizing<[u8; KEY_LEN]>> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    if text.len() == 2 * KEY_LEN {
        return hex::decode_to_slice(text, &mut key[..]).ok().map(|()| key);
    }
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { alphabet::URL_SAFE } else { alphabet::STANDARD };
    // Room for the longest decoding of 44 characters.
    let mut room = Zeroizing::new([0; KEY_LEN + 1]);
    if text.len() > 44 {
        return None;
    }
    let length = GeneralPurpose::new(&alphabet, config).decode_slice(text, &mut room[..]).ok()?;
    (length == KEY_LEN).then(|| key.copy_from_slice(&room[..KEY_LEN]))?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    const ONE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";
    const ONE_IN_BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OTHER: &str = "//////////////////////////////////////////8=";

    fn inline(text: &str) -> SecretSource {
        SecretSource::Inline(Secret::new(text.to_owned()))
    }

    fn seal(current: &str, older: &[&str]) -> Encryption {
        Encryption::new(&inline(current), &older.iter().map(|text| inline(text)).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn encrypted_content_decrypts_in_its_context_only() {
        let seal = seal(ONE, &[]);
        let sealed = seal.encrypt(b"content".to_vec(), b"place").unwrap();
        assert_eq!(sealed.len(), b"content".len() + Encryption::OVERHEAD);
        assert_eq!(seal.decrypt(&sealed, b"place").as_deref(), Some(&b"content"[..]));
        assert_eq!(seal.decrypt(&sealed, b"other place"), None);
        for index in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[index] ^= 1;
            assert_eq!(seal.decrypt(&broken, b"place"), None, "byte {index}");
            assert_eq!(seal.decrypt(&sealed[..index], b"place"), None, "{index} bytes");
        }
        // The same content encrypts differently each time.
        assert_ne!(seal.encrypt(b"content".to_vec(), b"place").unwrap(), sealed);
    }

    #[test]
    fn rotation_keeps_older_entries_readable() {
        let before = seal(ONE, &[OTHER]);
        let after = seal(OTHER, &[ONE_IN_BASE64]);
        let sealed = before.encrypt(b"content".to_vec(), b"").unwrap();
        assert!(after.decrypt(&sealed, b"").is_some());
        let sealed = after.encrypt(b"content".to_vec(), b"").unwrap();
        assert!(before.decrypt(&sealed, b"").is_some());
        assert!(seal(ONE, &[]).decrypt(&sealed, b"").is_none());
    }

    #[test]
    fn replaced_key_file_keeps_older_entries_readable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, ONE).unwrap();
        let stats = Arc::new(ReloadStats::default());
        let ours = Encryption::counting(&SecretSource::File(path.clone()), &[], Arc::clone(&stats)).unwrap();
        let sealed = ours.encrypt(b"content".to_vec(), b"").unwrap();
        std::fs::write(&path, "half-a-key").unwrap();
        assert!(ours.refresh().unwrap_err().to_string().contains("openssl rand -hex 32"));
        assert_eq!(ours.refresh(), Ok(false), "reported once");
        assert!(ours.decrypt(&sealed, b"").is_some() && stats.failures() == 2);
        std::fs::write(&path, OTHER).unwrap();
        assert_eq!(ours.refresh(), Ok(true));
        assert!(ours.decrypt(&sealed, b"").is_some());
        let sealed = ours.encrypt(b"content".to_vec(), b"").unwrap();
        assert!(seal(OTHER, &[]).decrypt(&sealed, b"").is_some());
        // Switching back does not store the key twice.
        std::fs::write(&path, ONE).unwrap();
        assert_eq!(ours.refresh(), Ok(true));
        assert_eq!(format!("{ours:?}"), "Encryption { keys: 2 }");
    }

    #[test]
    fn keys_are_32_bytes_in_hex_or_base64() {
        let unpadded = ONE_IN_BASE64.trim_end_matches('=');
        let url_safe = OTHER.replace('/', "_");
        for text in [ONE, ONE_IN_BASE64, unpadded, OTHER, &url_safe] {
            assert!(Encryption::new(&inline(text), &[]).is_ok(), "{text}");
        }
        for text in ["CANARY", &ONE[1..], &format!("{ONE}0"), &ONE.replace('0', "x"), &ONE_IN_BASE64[4..]] {
            let error = Encryption::new(&inline(text), &[]).unwrap_err();
            assert!(error.to_string().contains("openssl rand -hex 32"), "{error}");
            assert!(!format!("{error} {error:?}").contains(text));
        }
        let missing = SecretSource::File("/nonexistent/seal".into());
        assert!(Encryption::new(&missing, &[]).unwrap_err().to_string().contains("/nonexistent/seal"));
    }
}
