//! Orders at an ACME authority.
//!
//! Owns the connection to the authority. The invariants: an answer of the authority has at most
//! 1 MiB, and an order ends within a bounded time.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Request;
use http_body_util::Limited;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType,
    Error, HttpClient, Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use tokio::time::timeout;

use super::cache::Cache;
use super::challenge_port::Tokens;
use crate::base::failure::Failure;
use crate::config::TlsAutocert;
use crate::control::backend::endpoint::causes;
use crate::tls::client::trusting;
use crate::tls::issued::Issued;

/// Maximum time of an order.
const ORDER_TIME: Duration = Duration::from_secs(120);
/// Maximum size of an answer in bytes.
const ANSWER_MAX: usize = 1 << 20;

/// Sends requests to the authority.
#[derive(Clone)]
struct Https(legacy::Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>);

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let answer = self.0.request(request);
        Box::pin(async move {
            let answer = answer.await.map_err(|refused| Error::Other(Box::new(refused)))?;
            Ok(answer.map(|body| Limited::new(body, ANSWER_MAX)).into())
        })
    }
}

/// Where challenges are answered.
pub struct Challenges<'a> {
    /// Certificates that answer tls-alpn-01.
    pub issued: &'a Arc<Issued>,
    /// Texts that answer http-01.
    pub tokens: &'a Tokens,
    /// Use http-01.
    pub by_http: bool,
}

/// An ACME authority.
pub struct Authority {
    https: Https,
    directory: String,
    email: String,
    uses_http: bool,
    account: Option<Account>,
}

impl Authority {
    /// The authority of these options.
    ///
    /// # Errors
    /// Its certificates cannot be used.
    pub fn new(options: &TlsAutocert) -> Result<Self, Failure> {
        let tls = trusting("http_server.tls_autocert.directory_ca_pem", &options.directory_ca_pem)?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        Ok(Authority {
            https: Https(legacy::Client::builder(TokioExecutor::new()).build(connector)),
            directory: options.directory_url.clone(),
            email: options.email.clone(),
            uses_http: options.http,
            account: None,
        })
    }

    /// Whether hosts are proved by http-01.
    pub fn uses_http(&self) -> bool {
        self.uses_http
    }

    /// Orders a certificate for a host. The key and the chain, in PEM.
    pub async fn order(
        &mut self,
        host: &str,
        cache: &Cache,
        challenges: &Challenges<'_>,
    ) -> Result<String, String> {
        let ordered = timeout(ORDER_TIME, self.try_order(host, cache, challenges)).await;
        challenges.issued.end_challenge(host);
        challenges.tokens.clear();
        ordered.unwrap_or_else(|_| Err("the order took longer than 2 minutes".to_owned()))
    }

    async fn try_order(
        &mut self,
        host: &str,
        cache: &Cache,
        challenges: &Challenges<'_>,
    ) -> Result<String, String> {
        let text = |refused: Error| format!("{}: {refused}", self.directory);
        let identifiers = [Identifier::Dns(host.to_owned())];
        let new = NewOrder::new(&identifiers);
        let account = match self.account.take() {
            Some(account) => account,
            None => self.open_account(cache).await?,
        };
        let (account, order) = match account.new_order(&new).await {
            Err(Error::Api(problem)) if is_unknown_account(&problem) => {
                let account = self.make_account(cache).await?;
                let order = account.new_order(&new).await;
                (account, order)
            }
            order => (account, order),
        };
        self.account = Some(account);
        let mut order = order.map_err(text)?;
        answer(&mut order, host, challenges).await?;
        let status = order.poll_ready(&RetryPolicy::default()).await.map_err(text)?;
        if status != OrderStatus::Ready && status != OrderStatus::Valid {
            return Err(refusal(&mut order, self.uses_http).await);
        }
        let key = order.finalize().await.map_err(text)?;
        let chain = order.poll_certificate(&RetryPolicy::default()).await.map_err(text)?;
        Ok(format!("{key}\n{chain}"))
    }

    /// The account in the folder, or a new one.
    async fn open_account(&self, cache: &Cache) -> Result<Account, String> {
        let text = |refused: Error| format!("{}: {refused}", self.directory);
        let kept = cache.account(&self.directory);
        let kept = kept.and_then(|kept| serde_json::from_slice::<AccountCredentials>(&kept).ok());
        if let Some(kept) = kept {
            let builder = Account::builder_with_http(Box::new(self.https.clone()));
            return builder.from_credentials(kept).await.map_err(text);
        }
        self.make_account(cache).await
    }

    async fn make_account(&self, cache: &Cache) -> Result<Account, String> {
        let text = |refused: Error| format!("{}: {refused}", self.directory);
        let contact = format!("mailto:{}", self.email);
        let contact = [contact.as_str()];
        let new = NewAccount {
            contact: if self.email.is_empty() { &[] } else { &contact },
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let builder = Account::builder_with_http(Box::new(self.https.clone()));
        let made = builder.create(&new, self.directory.clone(), None).await;
        let (account, credentials) = made.map_err(text)?;
        let bytes = serde_json::to_vec(&credentials).map_err(|refused| refused.to_string())?;
        cache.keep_account(&self.directory, &bytes)?;
        Ok(account)
    }
}

/// Whether the authority has forgotten the account, as one for tests does.
fn is_unknown_account(problem: &Problem) -> bool {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind.ends_with(":accountDoesNotExist")
}

/// Answers the challenges of an order.
async fn answer(order: &mut Order, host: &str, challenges: &Challenges<'_>) -> Result<(), String> {
    let text = |refused: Error| causes(&refused);
    let kind = if challenges.by_http { ChallengeType::Http01 } else { ChallengeType::TlsAlpn01 };
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(text)?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => return Err(format!("the authorization of {host} is {other:?}")),
        }
        let mut challenge = authorization
            .challenge(kind.clone())
            .ok_or_else(|| format!("the authority offers no challenge {kind:?} for {host}"))?;
        let proof = challenge.key_authorization();
        if challenges.by_http {
            challenges.tokens.set(&challenge.token, proof.as_str());
        } else {
            challenges.issued.begin_challenge(host, proof.digest().as_ref())?;
        }
        challenge.set_ready().await.map_err(text)?;
    }
    Ok(())
}

/// Why an order failed, as the authority says.
async fn refusal(order: &mut Order, by_http: bool) -> String {
    let mut causes = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        let problems = authorization.challenges.iter().filter_map(|one| one.error.as_ref());
        causes.extend(problems.map(ToString::to_string));
    }
    let port = if by_http { "port 80 to http_addr" } else { "port 443 to the public port" };
    let cure = format!("make the name of the host lead to this machine, and its {port}");
    match causes.is_empty() {
        true => format!("the authority could not check the host; {cure}"),
        false => format!("the authority could not check the host: {}; {cure}", causes.join(", ")),
    }
}
