//! A well-behaved client of the services: it tries again at another replica, with the same
//! `Idempotency-Key`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use contracts::OrderId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{PerService, Service};

const LIMIT: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A client that sends to a service's replicas in turn. After 503 or 429, a lost connection or silence, it
/// tries again until a limit.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    directory: Directory,
    token: String,
    turn: Arc<AtomicUsize>,
    limit: Duration,
    longest_pause: Duration,
    /// Silence after which a request fails; if `None`, it is tried again.
    silence: Option<Duration>,
}

/// An answer of a service.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; null if it is not JSON.
    pub json: Value,
    /// The `Location` header.
    pub location: Option<String>,
}

/// The addresses of the replicas that run.
#[derive(Clone, Default)]
pub(super) struct Directory(Arc<RwLock<PerService<Vec<String>>>>);

impl Client {
    /// Limit on one try: a replica that is paused accepts connections and never answers.
    pub const TRY: Duration = Duration::from_secs(3);

    pub(super) fn new(directory: Directory, token: String) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client without TLS can be made");
        Self {
            http,
            directory,
            token,
            turn: Arc::default(),
            limit: LIMIT,
            longest_pause: LONGEST_PAUSE,
            silence: None,
        }
    }

    /// Returns a client of replicas at known addresses, with a token that they accept.
    #[must_use]
    pub fn of(urls: &PerService<Vec<String>>, token: String) -> Self {
        Self::new(Directory(Arc::new(RwLock::new(urls.clone()))), token)
    }

    /// Sets the time after which a request is given up; 30 s by default.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Sets the longest pause between two tries; 500 ms by default.
    #[must_use]
    pub fn pausing_at_most(self, longest_pause: Duration) -> Self {
        Self { longest_pause, ..self }
    }

    /// Fails if a try gets no answer for this long, instead of sending it again. After 503, 429 and lost
    /// connections it tries again as before.
    #[must_use]
    pub fn failing_after_silence_of(self, silence: Duration) -> Self {
        Self { silence: Some(silence), ..self }
    }

    /// Sends `POST /accounts/{customer}/deposits`, in cents of a euro.
    ///
    /// # Errors
    /// If no replica answers within the limit.
    pub async fn deposit(&self, customer: &str, cents: i64, key: &str) -> Result<Answer> {
        let body = json!({"amount": cents, "currency": "EUR"});
        self.post(
            Service::PAYMENT,
            &format!("/accounts/{customer}/deposits"),
            Some(key),
            Some(&body),
        )
        .await
    }

    /// Sends `POST /stock/{sku}/receipts`.
    ///
    /// # Errors
    /// If no replica answers within the limit.
    pub async fn receive(&self, sku: &str, quantity: i64, key: &str) -> Result<Answer> {
        let body = json!({"quantity": quantity});
        self.post(Service::INVENTORY, &format!("/stock/{sku}/receipts"), Some(key), Some(&body))
            .await
    }

    /// Sends `POST /orders`.
    ///
    /// # Errors
    /// If no replica answers within the limit.
    pub async fn place(&self, customer: &str, lines: &[(&str, i64)], key: &str) -> Result<Answer> {
        let lines: Vec<Value> =
            lines.iter().map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity})).collect();
        self.post(
            Service::ORDER,
            "/orders",
            Some(key),
            Some(&json!({"customer": customer, "lines": lines})),
        )
        .await
    }

    /// Sends `POST /orders/{id}/cancel`.
    ///
    /// # Errors
    /// If no replica answers within the limit.
    pub async fn cancel(&self, order: OrderId) -> Result<Answer> {
        self.post(Service::ORDER, &format!("/orders/{order}/cancel"), None, None).await
    }

    /// Sends `GET /orders/{id}`.
    ///
    /// # Errors
    /// If no replica answers within the limit.
    pub async fn order(&self, order: OrderId) -> Result<Answer> {
        self.get(Service::ORDER, &format!("/orders/{order}")).await
    }

    /// Sends any `GET`.
    ///
    /// # Errors
    /// If no replica answers within the limit.
    pub async fn get(&self, service: Service, path: &str) -> Result<Answer> {
        self.send(service, Method::GET, path, None, None).await
    }

    /// Sends any `POST`.
    ///
    /// # Errors
    /// If no replica answers within the limit.
    pub async fn post(
        &self,
        service: Service,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer> {
        self.send(service, Method::POST, path, key, body).await
    }

    async fn send(
        &self,
        service: Service,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let deadline = Instant::now() + self.limit;
        let mut pause = Duration::from_millis(20);
        loop {
            let failure = match self
                .directory
                .pick(service, self.turn.fetch_add(1, Ordering::Relaxed))
            {
                None => "none of its replicas runs".to_owned(),
                Some(url) => match self.try_once(&method, &format!("{url}{path}"), key, body).await
                {
                    Ok(answer) if !answer.says_later() => return Ok(answer),
                    Ok(answer) => {
                        format!("it answers {}, {}", answer.status, answer.json["detail"])
                    }
                    Err(error) if error.is_timeout() && self.silence.is_some() => {
                        bail!("{method} {path}: {url} gave no answer in {:?}", self.one_try());
                    }
                    Err(error) => format!("{:#}", anyhow::Error::new(error)),
                },
            };

            if Instant::now() >= deadline {
                bail!(
                    "{method} {path}: {service} could not be reached in {:?}: {failure}",
                    self.limit
                );
            }

            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.longest_pause);
        }
    }

    async fn try_once(
        &self,
        method: &Method,
        url: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> reqwest::Result<Answer> {
        let mut request =
            self.http.request(method.clone(), url).timeout(self.one_try()).bearer_auth(&self.token);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }

        let response = request.send().await?;
        let location = response
            .headers()
            .get("Location")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let status = response.status().as_u16();
        let json = serde_json::from_slice(&response.bytes().await?).unwrap_or(Value::Null);
        Ok(Answer { status, json, location })
    }

    fn one_try(&self) -> Duration {
        self.silence.unwrap_or(Self::TRY)
    }
}

impl Answer {
    /// Whether the request is to be sent again later: the service or the caller has too much to do.
    fn says_later(&self) -> bool {
        let later = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
        later.iter().any(|status| self.status == status.as_u16())
    }

    /// Returns the body of a 2xx.
    ///
    /// # Errors
    /// If the status is another one; with the body.
    pub fn success(self) -> Result<Value> {
        if (200..300).contains(&self.status) {
            Ok(self.json)
        } else {
            bail!("answered {}: {}", self.status, self.json)
        }
    }

    /// Returns the body of a 201.
    ///
    /// # Errors
    /// If the status is another one; with the body.
    pub fn created(self) -> Result<Value> {
        if self.status == 201 {
            Ok(self.json)
        } else {
            bail!("answered {} and not 201: {}", self.status, self.json)
        }
    }

    /// Returns the id of the order that was placed or is shown.
    ///
    /// # Errors
    /// If the status is not 2xx; with the body.
    pub fn order_id(self) -> Result<OrderId> {
        let json = self.success()?;
        let id = json["order_id"].as_str().with_context(|| format!("no order_id in {json}"))?;
        Ok(id.parse()?)
    }
}

impl Directory {
    pub(super) fn add(&self, service: Service, url: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner)[service].push(url.to_owned());
    }

    pub(super) fn remove(&self, service: Service, url: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner)[service]
            .retain(|other| other != url);
    }

    fn pick(&self, service: Service, turn: usize) -> Option<String> {
        let urls = &self.0.read().unwrap_or_else(PoisonError::into_inner)[service];
        urls.get(turn.checked_rem(urls.len())?).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[tokio::test]
    async fn silence_fails_if_the_client_is_set_to_fail() {
        // The kernel accepts connections, and nobody answers.
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let client = Client::of(&PerService::new(|_| vec![url.clone()]), String::new());
        let client = client.failing_after_silence_of(Duration::from_millis(100));
        let error = client.get(Service::ORDER, "/orders").await.unwrap_err().to_string();
        assert!(error.ends_with("gave no answer in 100ms"), "{error}");
    }
}
