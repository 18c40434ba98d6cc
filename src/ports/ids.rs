//! Numbers that must not be mixed up.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// An upstream PDS host: its row in the `host` table. Zero means the relay itself.
    HostId(u32)
);
id!(
    /// An account: its row in the `account` table.
    AccountId(u64)
);
id!(
    /// A shard: one pinned thread with its hosts, accounts and consumers.
    ShardId(u16)
);
id!(
    /// A connected consumer, unique over the life of the process.
    ConsumerId(u64)
);
id!(
    /// A sequence number given out by an upstream host.
    HostSeq(u64)
);
id!(
    /// A sequence number given out by this relay.
    RelaySeq(u64)
);

impl RelaySeq {
    /// The number after this one: the only increment there is.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl HostId {
    /// Events that the relay itself makes (a take-down) carry this in place of a host.
    pub const RELAY: Self = Self(0);
}
