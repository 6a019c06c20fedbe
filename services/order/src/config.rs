//! The order service's own settings.

use std::path::PathBuf;
use std::time::Duration;

use reel::runtime::ConfigError;

use crate::prices::PriceList;

/// The order service's own settings.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Time that an order may take before it is cancelled: 15m, 90s, or a number of seconds
    #[arg(
        long,
        env = "ORDER_SETTLE_WITHIN",
        default_value = "15m",
        value_name = "TIME",
        value_parser = settle_within
    )]
    pub settle_within: Duration,

    /// The price list, a JSON file of [{sku, name, unit_price: {amount, currency}}]; without it,
    /// the one compiled in
    #[arg(long, env = "ORDER_PRICES", value_name = "FILE")]
    pub prices: Option<PathBuf>,
}

/// Upper bound of `ORDER_SETTLE_WITHIN`.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl Settings {
    /// The price list in the file that the settings name, or the one compiled in.
    ///
    /// # Errors
    /// If the file cannot be read or is not a price list.
    pub fn price_list(&self) -> Result<PriceList, ConfigError> {
        let Some(file) = &self.prices else { return Ok(PriceList::compiled_in()) };
        PriceList::read(file).map_err(|error| ConfigError {
            name: "ORDER_PRICES".into(),
            reason: format!("the price list {} {error}", file.display()),
        })
    }
}

fn settle_within(text: &str) -> Result<Duration, String> {
    let invalid = || {
        "a time such as 15m, 90s or 1h 30m, or a number of seconds, above zero and up to 366 days"
            .to_owned()
    };
    let time = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text).map_err(|_| invalid())?,
    };
    if time.is_zero() || time > LONGEST { Err(invalid()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_seconds_or_has_units() {
        for (text, seconds) in [("3", 3), ("90s", 90), ("15m", 900), ("1h 30m", 5_400)] {
            assert_eq!(settle_within(text), Ok(Duration::from_secs(seconds)));
        }
        for bad in ["", "0", "soon", "-1", "1000y", "99999999999999999999"] {
            assert!(settle_within(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_wrong_price_list_is_named_with_its_setting() {
        let settings = Settings { settle_within: LONGEST, prices: Some("/no/such/file".into()) };
        let error = settings.price_list().expect_err("there is no such file").to_string();
        assert!(
            error.starts_with("ORDER_PRICES: the price list /no/such/file cannot be read"),
            "{error}"
        );
    }
}
