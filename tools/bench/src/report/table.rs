//! The table on stdout.

use std::fmt::Write;

use super::Figure;

/// The figures of a part, one per line.
pub(super) fn table(part: &str, figures: &[Figure]) -> String {
    let width = figures
        .iter()
        .map(|figure| figure.name.chars().count())
        .max()
        .unwrap_or(0)
        .max(part.chars().count());

    let mut text = String::new();
    let _ = writeln!(text, "{part:<width$}  {:>14}           {:>14}  ratio", "median", "yardstick");
    for figure in figures {
        let _ = write!(
            text,
            "{:<width$}  {:>14} {:<8}",
            figure.name,
            number(figure.value),
            figure.unit
        );
        if let Some(yardstick) = &figure.yardstick {
            let _ = write!(
                text,
                "  {:>14}  {:>5.2}  {}",
                number(yardstick.value),
                yardstick.ratio,
                yardstick.name
            );
        }

        let _ = writeln!(text);
    }

    text
}

/// A number for people: with commas between thousands, and with decimals only below 100.
fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }

    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_have_commas_and_small_ones_decimals() {
        assert_eq!(
            [0.1234, 99.9, 100.4, 122_000.0, 1_234_567.8].map(number),
            ["0.12", "99.90", "100", "122,000", "1,234,568"]
        );
    }
}
