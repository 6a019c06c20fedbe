//! Reasons: closed lists of symbols. An older reader sees `unknown` in place of a symbol that was
//! added later, in events and in rows. A row that has a reason is never changed again, so the symbol
//! stays as it was written.

/// Declares an Avro enum whose symbols are also its values in databases and in HTTP responses. It has
/// a variant `Unknown`.
macro_rules! symbols {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $($(#[$doc:meta])* $variant:ident = $symbol:tt),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq,
            serde::Serialize, serde::Deserialize, apache_avro::AvroSchema,
        )]
        #[avro(namespace = "shop")]
        pub enum $name {
            $(
                $(#[$doc])*
                #[serde(rename = $symbol)]
                #[avro(rename = $symbol)]
                $variant
            ),+
        }

        impl $name {
            /// The symbol, as it is stored and shown.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $symbol),+ }
            }

            /// The reason of this symbol; `Unknown` if a later version has stored it.
            #[must_use]
            pub fn from_symbol(symbol: &str) -> Self {
                match symbol {
                    $($symbol => Self::$variant,)+
                    _ => Self::Unknown,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use symbols;
