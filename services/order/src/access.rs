//! Whose orders a caller may see, place and cancel.

use contracts::CustomerId;
use reel::http::{Caller, Problem};

/// The scope of tokens that act for all customers.
pub(crate) const SHOP: &str = "shop";

/// The customer that a request is about: the one it names, or else the subject of the token. `None`
/// if there is neither.
pub(crate) fn customer_of(
    named: Option<&str>,
    caller: &Caller,
) -> Result<Option<CustomerId>, Problem> {
    let name = match (named, caller.subject()) {
        (Some(name), _) => name,
        (None, None) => return Ok(None),
        (None, Some(subject)) if CustomerId::entered(subject).is_err() => {
            // The fault is in the token, not in a field of the request: so 403, not 400.
            let detail = format!(
                "the token is made for {subject:?}, which is no customer's name: name the customer"
            );
            return Err(Problem::forbidden(detail, SHOP));
        }
        (None, Some(subject)) => subject,
    };

    let customer = CustomerId::entered(name)
        .map_err(|error| Problem::invalid("customer", error.to_string()))?;
    caller.must_act_for(customer.as_str(), SHOP)?;
    Ok(Some(customer))
}
