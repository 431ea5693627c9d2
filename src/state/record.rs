//! One request as 40 bytes, with a checksum that detects damage.

use std::time::Duration;

use clerk_quota::{Bucket, Entity};

/// Length of a record.
pub(super) const BYTES: usize = 40;

/// Identifies the format and its version. Files that start differently are ignored.
pub(super) const MAGIC: [u8; 8] = *b"clkatt\x001";

/// The type of a file's first record: the start of the recording.
const BEGINNING: u8 = 0xff;

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// Every request since this time is recorded.
    Begun(Duration),
    /// A request is about to be sent.
    Sent(SentRequest),
}

/// A request that is about to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SentRequest {
    /// A hash of the instance name.
    pub(super) instance: u64,
    pub(super) bucket: Bucket,
    pub(super) entity: Option<Entity>,
    /// Wall-clock time since the UNIX epoch.
    pub(super) at: Duration,
    /// Distinguishes requests sent at the same time.
    pub(super) serial: u32,
}

impl Record {
    pub(super) fn to_bytes(self) -> [u8; BYTES] {
        let (kind, has_entity, at, instance, entity, serial) = match self {
            Self::Begun(at) => (BEGINNING, 0, at, 0, 0, 0),
            Self::Sent(SentRequest { instance, bucket, entity, at, serial }) => {
                let kind = bucket.index().and_then(|index| u8::try_from(index).ok()).unwrap_or_default();
                (kind, u8::from(entity.is_some()), at, instance, entity.map_or(0, |entity| entity.0), serial)
            }
        };
        let mut bytes = [0; BYTES];
        bytes[0] = kind;
        bytes[1] = has_entity;
        bytes[4..8].copy_from_slice(&serial.to_le_bytes());
        bytes[8..16].copy_from_slice(&u64::try_from(at.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
        bytes[16..24].copy_from_slice(&instance.to_le_bytes());
        bytes[24..32].copy_from_slice(&entity.to_le_bytes());
        let sum = hash(&bytes[..32]);
        bytes[32..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `None` if the record is damaged or has invalid values.
    pub(super) fn from_bytes(bytes: &[u8; BYTES]) -> Option<Self> {
        let number = |from: usize| {
            let part = bytes.get(from..from + 8)?;
            Some(u64::from_le_bytes(part.try_into().ok()?))
        };
        if number(32)? != hash(&bytes[..32]) {
            return None;
        }
        let at = Duration::from_nanos(number(8)?);
        if bytes[0] == BEGINNING {
            return Some(Self::Begun(at));
        }
        let bucket = *Bucket::LIMITED.get(usize::from(bytes[0]))?;
        let entity = (bytes[1] == 1).then_some(Entity(number(24)?));
        let serial = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
        Some(Self::Sent(SentRequest { instance: number(16)?, bucket, entity, at, serial }))
    }
}

/// FNV-1a: unlike the hashes of the standard library, it is the same in every version.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_survives_a_round_trip(
            instance in any::<u64>(), bucket in 0..Bucket::LIMITED.len(), entity in any::<Option<u64>>(), at in any::<u64>(),
            serial in any::<u32>(),
        ) {
            let bucket = Bucket::LIMITED[bucket];
            let sent = SentRequest { instance, bucket, entity: entity.map(Entity), at: Duration::from_nanos(at), serial };
            prop_assert_eq!(Record::from_bytes(&Record::Sent(sent).to_bytes()), Some(Record::Sent(sent)));
        }

        #[test]
        fn changed_byte_is_detected(at in any::<u64>(), place in 0..BYTES, change in 1..=255_u8) {
            let mut bytes = Record::Begun(Duration::from_nanos(at)).to_bytes();
            bytes[place] ^= change;
            prop_assert_eq!(Record::from_bytes(&bytes), None);
        }
    }
}
