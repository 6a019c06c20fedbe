//! The partition of a key, by Kafka's own hash, so that any Kafka client computes the same one
//! (law 4).

use std::fmt::{self, Display};

/// The number of a partition, and of the lane that is this partition across all topics of a
/// service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i32);

impl Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, f)
    }
}

/// The number of partitions, which is the same for every topic of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitions(i32);

/// The seed of Kafka's `Utils.murmur2`.
const SEED: u32 = 0x9747_b28c;

impl Partitions {
    /// This number of partitions; `None` if it is less than one.
    #[must_use]
    pub fn new(count: i32) -> Option<Self> {
        (count > 0).then_some(Self(count))
    }

    /// The number of partitions.
    #[must_use]
    pub fn count(self) -> i32 {
        self.0
    }

    /// All partitions, in order.
    pub fn iter(self) -> impl Iterator<Item = Partition> {
        (0..self.0).map(Partition)
    }

    /// The partition of a key: `toPositive(murmur2(bytes)) % count`, as in Kafka's
    /// `BuiltInPartitioner.partitionForKey`.
    #[must_use]
    pub fn of(self, key: &[u8]) -> Partition {
        let hash = murmur2::murmur2(key, SEED) & 0x7fff_ffff;
        Partition(i32::try_from(hash).unwrap_or(0) % self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_kafkas_own_test() {
        // org.apache.kafka.common.utils.UtilsTest.testMurmur2
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in cases {
            assert_eq!(
                murmur2::murmur2(key, SEED).cast_signed(),
                hash,
                "{}",
                String::from_utf8_lossy(key)
            );
        }
    }
}
