//! Why is it so? All that is known of one host or account, for operators and for owners of hosts.

use ports::{AccountState, HostId};

use super::{HostView, Hosts, HostsError, Refused};
use crate::{dial::HostAddress, store::HostRow};

/// A host with its last refusals, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDetail {
    pub view: HostView,
    pub refusals: Vec<Refused>,
}

/// An account, if it is known, with its host and its last refusals, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountDetail {
    pub did: String,
    pub state: Option<AccountState>,
    pub host: Option<HostView>,
    pub refusals: Vec<Refused>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explanation {
    Host(Box<HostDetail>),
    Account(Box<AccountDetail>),
}

impl Hosts {
    /// All that is known of a host, by its normalised name.
    pub async fn detail(&self, hostname: &str) -> Result<Option<HostDetail>, HostsError> {
        let Some(view) = self.find(hostname).await? else { return Ok(None) };
        let refusals = self.refusals.of_host(view.row.id);
        Ok(Some(HostDetail { view, refusals }))
    }

    /// All that is known of an account.
    pub async fn account_detail(&self, did: &str) -> Result<AccountDetail, HostsError> {
        let state = self.store.account_by_did(did).await?;
        let host = match state {
            Some(state) if state.host != HostId::RELAY => {
                let HostRow { hostname, .. } = self.store.host(state.host).await?;
                self.find(&hostname).await?
            }
            _ => None,
        };
        let refusals = self.refusals.of_account(did);
        Ok(AccountDetail { did: did.to_owned(), state, host, refusals })
    }

    /// A host by any spelling of its name, or an account by its DID. `None`: there is nothing to
    /// tell.
    pub async fn explain(&self, subject: &str) -> Result<Option<Explanation>, HostsError> {
        if subject.starts_with("did:") {
            let detail = self.account_detail(subject).await?;
            let known = detail.state.is_some() || !detail.refusals.is_empty();
            return Ok(known.then(|| Explanation::Account(Box::new(detail))));
        }
        let Ok(address) = HostAddress::parse(subject) else { return Ok(None) };
        let detail = self.detail(&address.hostname).await?;
        Ok(detail.map(|detail| Explanation::Host(Box::new(detail))))
    }
}
