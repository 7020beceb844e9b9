//! Envoy's response flags (`%RESPONSE_FLAGS%`).

use std::fmt;

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $short:literal, $long:literal;)*) => {
        /// One reason for what happened to a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Flag { $($(#[$doc])* $name,)* }

        impl Flag {
            /// Every flag, in the order of Envoy's list.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Short form, as in `%RESPONSE_FLAGS%`.
            pub const fn short(self) -> &'static str {
                match self { $(Self::$name => $short,)* }
            }

            /// Long form, as in `%RESPONSE_FLAGS_LONG%`.
            pub const fn long(self) -> &'static str {
                match self { $(Self::$name => $long,)* }
            }
        }
    };
}

flags! {
    /// A local health check failed.
    FailedLocalHealthCheck = "LH", "FailedLocalHealthCheck";
    /// No healthy endpoint.
    NoHealthyUpstream = "UH", "NoHealthyUpstream";
    /// The upstream took too long.
    UpstreamRequestTimeout = "UT", "UpstreamRequestTimeout";
    /// We reset the stream.
    LocalReset = "LR", "LocalReset";
    /// The upstream reset the stream.
    UpstreamRemoteReset = "UR", "UpstreamRemoteReset";
    /// No connection.
    UpstreamConnectionFailure = "UF", "UpstreamConnectionFailure";
    /// The upstream connection ended.
    UpstreamConnectionTermination = "UC", "UpstreamConnectionTermination";
    /// A circuit breaker refused.
    UpstreamOverflow = "UO", "UpstreamOverflow";
    /// No route, or no filter chain.
    NoRoute = "NR", "NoRouteFound";
    /// A delay was injected.
    DelayInjected = "DI", "DelayInjected";
    /// An abort was injected.
    FaultInjected = "FI", "FaultInjected";
    /// A rate limit refused.
    RateLimited = "RL", "RateLimited";
    /// An authorization service refused.
    UnauthorizedExternalService = "UAEX", "UnauthorizedExternalService";
    /// The rate limit service failed.
    RateLimitServiceError = "RLSE", "RateLimitServiceError";
    /// The client went away.
    DownstreamConnectionTermination = "DC", "DownstreamConnectionTermination";
    /// No retry was left.
    UpstreamRetryLimitExceeded = "URX", "UpstreamRetryLimitExceeded";
    /// Nothing moved on the stream.
    StreamIdleTimeout = "SI", "StreamIdleTimeout";
    /// `x-envoy-*` request headers were not valid.
    InvalidEnvoyHeaders = "IH", "InvalidEnvoyRequestHeaders";
    /// The client broke the protocol.
    DownstreamProtocolError = "DPE", "DownstreamProtocolError";
    /// The upstream stream lived too long.
    UpstreamMaxStreamDurationReached = "UMSDR", "UpstreamMaxStreamDurationReached";
    /// Answered from a cache.
    ResponseFromCache = "RFCF", "ResponseFromCacheFilter";
    /// No configuration for a filter yet.
    NoFilterConfig = "NFCF", "NoFilterConfigFound";
    /// The downstream stream lived too long.
    DurationTimeout = "DT", "DurationTimeout";
    /// The upstream broke the protocol.
    UpstreamProtocolError = "UPE", "UpstreamProtocolError";
    /// No cluster.
    NoCluster = "NC", "NoClusterFound";
    /// The process is overloaded.
    OverloadManager = "OM", "OverloadManagerTerminated";
    /// A name could not be resolved.
    DnsResolutionFailed = "DF", "DnsResolutionFailed";
    /// The load was dropped on purpose.
    DropOverload = "DO", "DropOverLoad";
    /// The client reset the stream.
    DownstreamRemoteReset = "DR", "DownstreamRemoteReset";
}

/// A list of distinct [`Flag`]s; written as `-` when empty, else short forms joined by `,`, in the order in which they were
/// added, as in Envoy. It holds twelve, more than can come together; further ones are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flags(u64);

/// Bits of a place in [`Flags`], which holds a flag's number and one: 0 is the end.
const PLACE: u32 = 5;
/// Places in [`Flags`].
const PLACES: u32 = u64::BITS / PLACE;

impl Flags {
    /// Adds a flag.
    pub fn insert(&mut self, flag: Flag) {
        let count = (u64::BITS - self.0.leading_zeros()).div_ceil(PLACE);
        if count < PLACES && !self.contains(flag) {
            self.0 |= (flag as u64 + 1) << (count * PLACE);
        }
    }

    /// Whether the flag is set.
    pub fn contains(self, flag: Flag) -> bool {
        self.iter().any(|known| known == flag)
    }

    /// Whether no flag is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The flags that are set.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        let places = (0..PLACES).map(move |place| (self.0 >> (place * PLACE)) & ((1 << PLACE) - 1));
        places
            .take_while(|number| *number > 0)
            .filter_map(|number| Flag::ALL.get(number as usize - 1).copied())
    }
}

impl Extend<Flag> for Flags {
    fn extend<T: IntoIterator<Item = Flag>>(&mut self, flags: T) {
        flags.into_iter().for_each(|flag| self.insert(flag));
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (index, flag) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(flag.short())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_in_the_order_of_their_causes_or_as_a_dash() {
        let mut flags = Flags::default();
        assert_eq!(flags.to_string(), "-");
        flags.insert(Flag::UpstreamRetryLimitExceeded);
        flags.insert(Flag::UpstreamConnectionFailure);
        flags.insert(Flag::UpstreamRetryLimitExceeded);
        assert_eq!(flags.to_string(), "URX,UF");
        assert!(Flag::ALL.len() < 1 << PLACE, "a place holds each number");
        let mut all = Flags::default();
        all.extend(Flag::ALL.iter().copied());
        let first: Vec<Flag> = all.iter().collect();
        assert_eq!(first, Flag::ALL[..PLACES as usize], "the rest is left out");
        assert!(!all.contains(Flag::ALL[PLACES as usize]));
    }
}
