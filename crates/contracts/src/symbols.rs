//! Reasons: closed lists of symbols. An older reader sees `unknown` in place of a symbol that was
//! added later.

/// Declares an Avro enum whose symbols are also its values in databases and in HTTP responses.
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
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::Invalid;

            fn from_str(text: &str) -> Result<Self, $crate::Invalid> {
                match text {
                    $($symbol => Ok(Self::$variant),)+
                    _ => Err($crate::Invalid(concat!("not a symbol of ", stringify!($name)))),
                }
            }
        }
    };
}
pub(crate) use symbols;
