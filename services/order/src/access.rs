//! Whose orders a caller may see, place and cancel.

use contracts::CustomerId;
use reel::http::{Caller, Problem};

/// The scope of tokens that act for all customers.
pub(crate) const SHOP: &str = "shop";

/// For whom a request is: whom it names, and otherwise whom the token was made for.
pub(crate) fn customer_of(named: Option<&str>, caller: &Caller) -> Result<Option<CustomerId>, Problem> {
    let name = match (named, caller.subject()) {
        (Some(name), _) => name,
        (None, None) => return Ok(None),
        (None, Some(subject)) if subject.parse::<CustomerId>().is_err() => {
            // It is the token that names no customer, and nothing in the request.
            let detail = format!("the token is made for {subject:?}, which is no customer's name: name the customer");
            return Err(Problem::forbidden(detail, SHOP));
        }
        (None, Some(subject)) => subject,
    };
    let customer: CustomerId = name.parse().map_err(|error: contracts::Invalid| Problem::invalid("customer", error.to_string()))?;
    caller.must_act_for(customer.as_str(), SHOP)?;
    Ok(Some(customer))
}
