//! Which credential to offer next. Pure, so that it can be tested without a server.
//!
//! libgit2 asks again after every refusal and would for ever; each credential is offered once.

use std::path::{Path, PathBuf};

use git2::{Cred, CredentialType};

use super::url::{Address, Kind};
use crate::source::error::FetchError;
use crate::source::secret::Secret;

/// How we say who we are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// ssh: the agent, then the usual key files of the home directory. HTTP: what the address
    /// holds, or nobody.
    #[default]
    Auto,
    /// Nobody.
    None,
    /// An access token over HTTP. `user` where the server wants a certain one.
    Token {
        /// The user name sent with it; `x-access-token` suits GitHub, GitLab and Gitea.
        user: Option<String>,
        /// The token.
        token: Secret,
    },
    /// As `Token`, read from a file at every fetch, so that short-lived tokens can be renewed.
    TokenFile {
        /// The user name sent with it.
        user: Option<String>,
        /// The file; its first line counts.
        path: PathBuf,
    },
    /// User and password over HTTP.
    Basic {
        /// The user name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A private key file over ssh.
    SshKey {
        /// The private key, OpenSSH or PEM format.
        path: PathBuf,
        /// What it is encrypted with.
        passphrase: Option<Secret>,
    },
    /// The ssh agent of `SSH_AUTH_SOCK`.
    SshAgent,
}

/// One thing to offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Offer {
    UserPass(String, Secret),
    Agent(String),
    Key(String, PathBuf, Option<Secret>),
}

/// What is around for [`Auth::Auto`]; found at the rim.
#[derive(Debug, Clone, Default)]
pub(super) struct Around {
    /// Is there an ssh agent?
    pub agent: bool,
    /// The home directory.
    pub home: Option<PathBuf>,
}

impl Around {
    pub(super) fn look() -> Self {
        Self {
            agent: std::env::var_os("SSH_AUTH_SOCK").is_some_and(|v| !v.is_empty()),
            home: std::env::var_os("HOME").filter(|v| !v.is_empty()).map(PathBuf::from),
        }
    }
}

/// The key files that ssh tries without being told, best first.
const USUAL_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// Everything to offer to this address, in order. Fails where the configuration cannot fit.
pub(super) fn offers(
    auth: &Auth,
    address: &Address,
    found: Option<&(String, Secret)>,
    around: &Around,
    exists: impl Fn(&Path) -> bool,
) -> Result<Vec<Offer>, FetchError> {
    let misfit = |what: &str, hint: &str| {
        Err(FetchError::Config { what: format!("{what} for {address}"), hint: hint.to_owned() })
    };
    match address.kind() {
        Kind::Local(_) => Ok(Vec::new()),
        Kind::Http { .. } => match auth {
            Auth::Auto => {
                Ok(found.map(|(u, p)| Offer::UserPass(u.clone(), p.clone())).into_iter().collect())
            }
            Auth::None => Ok(Vec::new()),
            Auth::Token { user, token } => Ok(vec![token_offer(user.as_ref(), token.clone())]),
            Auth::TokenFile { user, path } => {
                let text = std::fs::read_to_string(path).map_err(|source| FetchError::Io {
                    doing: "read",
                    path: path.clone(),
                    source,
                })?;
                let token = text.lines().next().unwrap_or_default().trim();
                if token.is_empty() {
                    return misfit("an empty token file", "write the token on its first line");
                }
                Ok(vec![token_offer(user.as_ref(), Secret::new(token))])
            }
            Auth::Basic { user, password } => {
                Ok(vec![Offer::UserPass(user.clone(), password.clone())])
            }
            Auth::SshKey { .. } | Auth::SshAgent => {
                misfit("an ssh key", "use an ssh address, or a token")
            }
        },
        Kind::Ssh { user, .. } => {
            let user = user.clone().unwrap_or_else(|| "git".into());
            match auth {
                Auth::None => Ok(Vec::new()),
                Auth::SshAgent => Ok(vec![Offer::Agent(user)]),
                Auth::SshKey { path, passphrase } => {
                    if !exists(path) {
                        return misfit(
                            &format!("no key file at {}", path.display()),
                            "check the path and who may read it",
                        );
                    }
                    Ok(vec![Offer::Key(user, path.clone(), passphrase.clone())])
                }
                Auth::Auto => {
                    let agent = around.agent.then(|| Offer::Agent(user.clone()));
                    let keys = around
                        .home
                        .iter()
                        .flat_map(|home| USUAL_KEYS.iter().map(move |k| home.join(".ssh").join(k)));
                    let keys = keys
                        .filter(|path| exists(path))
                        .map(|path| Offer::Key(user.clone(), path, None));
                    Ok(agent.into_iter().chain(keys).collect())
                }
                Auth::Token { .. } | Auth::TokenFile { .. } | Auth::Basic { .. } => {
                    misfit("a token or password", "use an https address, or an ssh key")
                }
            }
        }
    }
}

fn token_offer(user: Option<&String>, token: Secret) -> Offer {
    Offer::UserPass(user.cloned().unwrap_or_else(|| "x-access-token".into()), token)
}

/// Deals offers out, each once.
#[derive(Debug)]
pub(super) struct Dealer {
    user: Option<String>,
    offers: std::vec::IntoIter<Offer>,
    tried: Vec<String>,
}

/// What to answer libgit2.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Username(String),
    Offer(Offer),
    /// Nothing is left; why, for the message.
    GiveUp(String),
}

impl Dealer {
    pub(super) fn new(offers: Vec<Offer>) -> Self {
        let user = offers.iter().find_map(|o| match o {
            Offer::Agent(u) | Offer::Key(u, ..) => Some(u.clone()),
            Offer::UserPass(..) => None,
        });
        Self { user, offers: offers.into_iter(), tried: Vec::new() }
    }

    pub(super) fn next(&mut self, allowed: CredentialType) -> Answer {
        // ssh without a user in the address asks for one first, on a connection of its own.
        if allowed == CredentialType::USERNAME {
            return match self.user.take() {
                Some(user) => Answer::Username(user),
                None => Answer::GiveUp("no user name is known".into()),
            };
        }
        for offer in self.offers.by_ref() {
            let (fits, what) = match &offer {
                Offer::UserPass(user, _) => {
                    (CredentialType::USER_PASS_PLAINTEXT, format!("the password of {user}"))
                }
                Offer::Agent(user) => (CredentialType::SSH_KEY, format!("the ssh agent as {user}")),
                Offer::Key(user, path, _) => {
                    (CredentialType::SSH_KEY, format!("the key {} as {user}", path.display()))
                }
            };
            if allowed.contains(fits) {
                self.tried.push(what);
                return Answer::Offer(offer);
            }
        }
        Answer::GiveUp(if self.tried.is_empty() {
            "it wants credentials and none are configured".into()
        } else {
            format!("it did not take {}", self.tried.join(" or "))
        })
    }
}

impl Offer {
    pub(super) fn cred(&self) -> Result<Cred, git2::Error> {
        match self {
            Self::UserPass(user, password) => Cred::userpass_plaintext(user, password.expose()),
            Self::Agent(user) => Cred::ssh_key_from_agent(user),
            Self::Key(user, path, phrase) => {
                Cred::ssh_key(user, None, path, phrase.as_ref().map(Secret::expose))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(auth: &Auth, address: &str, around: &Around, files: &[&str]) -> Vec<Offer> {
        let (address, found) = Address::parse(address).unwrap();
        let exists = |p: &Path| files.iter().any(|f| Path::new(f) == p);
        offers(auth, &address, found.as_ref(), around, exists).unwrap()
    }

    fn around() -> Around {
        Around { agent: true, home: Some("/home/me".into()) }
    }

    #[test]
    fn auto_over_ssh_is_the_agent_and_then_the_usual_keys() {
        let files = ["/home/me/.ssh/id_rsa", "/home/me/.ssh/id_ed25519"];
        let got = list(&Auth::Auto, "deploy@h:x", &around(), &files);
        let key = |f: &str| Offer::Key("deploy".into(), f.into(), None);
        assert_eq!(got, [Offer::Agent("deploy".into()), key(files[1]), key(files[0])]);
        assert_eq!(list(&Auth::Auto, "ssh://h/x", &Around::default(), &files), []);
    }

    #[test]
    fn auto_over_http_is_what_the_address_held() {
        let pass = |u: &str, p: &str| Offer::UserPass(u.into(), Secret::new(p));
        assert_eq!(list(&Auth::Auto, "https://a:b@h/x", &around(), &[]), [pass("a", "b")]);
        assert_eq!(list(&Auth::Auto, "https://h/x", &around(), &[]), []);
        assert_eq!(list(&Auth::None, "https://a:b@h/x", &around(), &[]), []);
    }

    #[test]
    fn what_cannot_fit_is_said_at_once() {
        let key = Auth::SshKey { path: "/k".into(), passphrase: None };
        let token = Auth::Token { user: None, token: Secret::new("t") };
        for (auth, address) in [(&key, "https://h/x"), (&token, "git@h:x"), (&key, "git@h:x")] {
            let (address, _) = Address::parse(address).unwrap();
            let e = offers(auth, &address, None, &around(), |_| false).unwrap_err();
            assert!(matches!(e, FetchError::Config { .. }), "{e}");
        }
    }

    #[test]
    fn a_token_file_is_read_every_time_and_may_not_be_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let auth = Auth::TokenFile { user: Some("me".into()), path: path.clone() };
        let (address, _) = Address::parse("https://h/x").unwrap();
        let get = || offers(&auth, &address, None, &Around::default(), Path::exists);
        assert!(matches!(get(), Err(FetchError::Io { .. })));
        for token in ["one", "two"] {
            std::fs::write(&path, format!("{token}\n")).unwrap();
            assert_eq!(get().unwrap(), [Offer::UserPass("me".into(), Secret::new(token))]);
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(get(), Err(FetchError::Config { .. })));
    }

    #[test]
    fn each_is_offered_once_and_then_it_ends() {
        let key = Offer::Key("git".into(), "/k".into(), None);
        let mut dealer = Dealer::new(vec![Offer::Agent("git".into()), key.clone()]);
        let ssh = CredentialType::SSH_KEY | CredentialType::SSH_MEMORY;
        assert_eq!(dealer.next(CredentialType::USERNAME), Answer::Username("git".into()));
        assert_eq!(dealer.next(ssh), Answer::Offer(Offer::Agent("git".into())));
        assert_eq!(dealer.next(ssh), Answer::Offer(key));
        let why = "it did not take the ssh agent as git or the key /k as git";
        assert_eq!(dealer.next(ssh), Answer::GiveUp(why.into()));
        assert_eq!(dealer.next(ssh), Answer::GiveUp(why.into()));
        assert!(matches!(dealer.next(CredentialType::USERNAME), Answer::GiveUp(_)));
    }

    #[test]
    fn nothing_is_offered_that_the_server_does_not_take() {
        let mut dealer = Dealer::new(vec![Offer::UserPass("u".into(), Secret::new("p"))]);
        assert!(matches!(dealer.next(CredentialType::SSH_KEY), Answer::GiveUp(_)));
    }
}
