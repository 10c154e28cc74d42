//! Which partition a key is in: murmur2 as Kafka's own producers use it.

/// Kafka's `murmur2` (`org.apache.kafka.common.utils.Utils`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = 0x9747_b28c ^ length;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let bytes: [u8; 4] = chunk.try_into().unwrap_or_default();
        let mut word = u32::from_le_bytes(bytes).wrapping_mul(M);
        word = (word ^ (word >> R)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of `partitions` that a record with this key goes to.
pub(crate) fn partition_of(key: &[u8], partitions: i32) -> i32 {
    let positive = i32::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or(0);
    positive % partitions.max(1)
}

/// A key for a control record that has to reach this partition: the record's own, unless its writer had other ideas about
/// partitions, or gave it none.
pub(super) fn key_for(own: Option<&[u8]>, partition: i32, partitions: i32) -> Vec<u8> {
    if let Some(own) = own.filter(|own| partition_of(own, partitions) == partition) {
        return own.to_vec();
    }
    let made = (0_u64..).map(|number| format!("partition-{partition}-{number}").into_bytes());
    made.into_iter().find(|key| partition_of(key, partitions) == partition).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_where_kafka_s_own_producers_put_them() {
        // From Kafka's own test of its function.
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn a_control_record_reaches_its_partition_whatever_the_record_s_key_was() {
        for partition in 0..7 {
            for own in [None, Some(b"abc".as_slice())] {
                assert_eq!(partition_of(&key_for(own, partition, 7), 7), partition);
            }
        }
        assert_eq!(key_for(Some(b"abc"), partition_of(b"abc", 7), 7), b"abc");
    }
}
