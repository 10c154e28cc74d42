//! Servers of your own: TLS and SASL to Kafka, TLS to PostgreSQL and Redis, and of each no more than a service needs, made by the
//! same scripts as in production.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kafka_cluster::{Cluster, Security};
use local_stack::{GuardedChild, GuardedCommand, SecuredListener, Stack, StackOptions};
use messaging::{LogReader, Output, Publisher};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use system_tests::{Client, SOON, binary, deploy};
use uuid::Uuid;

const SERVICES: [(&str, &str); 4] = [
    ("order-orchestrator", "orchestrator"),
    ("stock-worker", "stock"),
    ("payment-worker", "payment"),
    ("api", "api"),
];

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// An authority and a certificate for this machine, made by openssl.
struct Certificates {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    /// Key and certificate in one file.
    both: PathBuf,
}

impl Certificates {
    fn make(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        let made = Self {
            authority: file("ca.pem"),
            certificate: file("server.pem"),
            key: file("server-key.pem"),
            both: file("server-both.pem"),
        };
        let openssl = |arguments: &str| {
            run(Command::new("openssl").args(arguments.split(' ')).current_dir(folder));
        };
        let new_key = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!("{new_key} -x509 -days 2 -keyout ca-key.pem -out ca.pem -subj /CN=tests"));
        openssl(&format!("{new_key} -keyout server-key.pem -out server.csr -subj /CN=localhost"));
        fs::write(file("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile names -out server.pem",
        );
        let parts = [&made.key, &made.certificate].map(|file| fs::read_to_string(file).unwrap());
        fs::write(&made.both, parts.concat()).unwrap();
        made
    }
}

/// The servers, and what each service was given to be let in.
struct World {
    stack: Stack,
    /// Running services and Redis.
    children: Vec<GuardedChild>,
    folder: PathBuf,
    secured: String,
    certificates: Certificates,
    passwords: Vec<(String, String)>,
    redis_port: u16,
}

impl World {
    async fn start() -> Self {
        let folder = testkit::fresh_folder("own-servers");
        let certificates = Certificates::make(&folder);
        let users = SERVICES.iter().map(|(service, _)| *service).chain(["operator"]);
        let passwords: Vec<(String, String)> =
            users.map(|user| (user.to_owned(), Uuid::new_v4().simple().to_string())).collect();
        let port = local_stack::free_port().unwrap();
        let stack = Stack::start(StackOptions {
            kafka_secured: Some(SecuredListener {
                port,
                key_store: certificates.both.clone(),
                accounts: passwords.clone(),
            }),
            databases: Vec::new(),
            ..StackOptions::for_tests(folder.join("stack"))
        })
        .await
        .unwrap();
        let redis_port = local_stack::free_port().unwrap();
        let redis = GuardedCommand::new("redis-server", folder.join("redis.log"))
            .args(["--port", "0", "--tls-port", &redis_port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--tls-auth-clients", "no"])
            .args(["--tls-cert-file".as_ref(), certificates.certificate.as_os_str()])
            .args(["--tls-key-file".as_ref(), certificates.key.as_os_str()])
            .args(["--tls-ca-cert-file".as_ref(), certificates.authority.as_os_str()])
            .arg("--dir")
            .arg(&folder);
        let children = vec![redis.spawn().unwrap()];
        let secured = format!("127.0.0.1:{port}");
        let world = Self { stack, children, folder, secured, certificates, passwords, redis_port };
        world.encrypt_postgres().await;
        world.make_accounts();
        world
    }

    /// PostgreSQL reads a key only if nobody else can.
    async fn encrypt_postgres(&self) {
        let mut admin = PgConnection::connect(&self.stack.postgres_url("postgres")).await.unwrap();
        let data: String = sqlx::query_scalar("SHOW data_directory").fetch_one(&mut admin).await.unwrap();
        let data = Path::new(&data);
        let owner = fs::metadata(data).unwrap();
        for (from, name) in
            [(&self.certificates.certificate, "server.crt"), (&self.certificates.key, "server.key")]
        {
            let to = data.join(name);
            fs::copy(from, &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
            chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        sqlx::query("ALTER SYSTEM SET ssl = on").execute(&mut admin).await.unwrap();
        sqlx::query("SELECT pg_reload_conf()").execute(&mut admin).await.unwrap();
        testkit::eventually(SOON, "PostgreSQL speaks TLS", async || {
            let on: String = sqlx::query_scalar("SHOW ssl").fetch_one(&mut admin).await.unwrap();
            if on == "on" { Ok(()) } else { Err(on) }
        })
        .await;
    }

    /// Secrets, roles and databases, topics, and what Kafka allows: by the scripts that come with the product.
    fn make_accounts(&self) {
        run(Command::new(deploy("make-secrets.sh")).arg(self.secrets()));
        let postgres = reqwest::Url::parse(&self.stack.postgres_url("postgres")).unwrap();
        run(Command::new(deploy("postgres/databases.sh"))
            .env("SETTINGS", self.secrets())
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", postgres.port().unwrap().to_string())
            .env("POSTGRES_USER", postgres.username())
            .env("PGPASSWORD", postgres.password().unwrap()));
        run(Command::new(binary("firstcome")).args(["topics", "--kafka", &self.stack.kafka()]));
        let tool = self.stack.kafka_tool("org.apache.kafka.tools.AclCommand").unwrap().join(" ");
        run(Command::new(deploy("kafka-acls.sh")).arg(self.stack.kafka()).env("KAFKA_ACLS", tool));
    }

    fn secrets(&self) -> PathBuf {
        self.folder.join("secrets")
    }

    fn security(&self, user: &str) -> Security {
        let password = self.passwords.iter().find(|(name, _)| name == user).unwrap().1.clone();
        Security {
            tls: true,
            ca_file: Some(self.certificates.authority.clone()),
            user: Some(user.to_owned()),
            password: Some(password),
            ..Security::default()
        }
    }

    /// Kafka as this service sees it.
    fn cluster(&self, user: &str) -> Cluster {
        Cluster::new(&self.secured, &self.security(user))
    }

    /// URL of a service's database, with the service's role.
    fn database(&self, name: &str) -> String {
        let settings = fs::read_to_string(self.secrets().join(format!("{name}.toml"))).unwrap();
        let url = settings.split('"').nth(1).unwrap();
        let port = reqwest::Url::parse(&self.stack.postgres_url("postgres")).unwrap().port().unwrap();
        let tls = format!("sslmode=verify-full&sslrootcert={}", self.certificates.authority.display());
        format!("{}?{tls}", url.replace("@postgres:5432", &format!("@localhost:{port}")))
    }

    /// Starts a service as an operator would: a settings file with everything secret in it.
    fn service(
        &mut self,
        service: &str,
        database: &str,
        security: &Security,
        more: &str,
    ) -> (String, PathBuf) {
        let admin = format!("127.0.0.1:{}", local_stack::free_port().unwrap());
        let settings = format!(
            "brokers = \"{}\"\ndatabase_url = \"{}\"\nadmin_listen = \"{admin}\"\n{more}\n[kafka_security]\n{}",
            self.secured,
            self.database(database),
            toml::to_string(security).unwrap(),
        );
        let name = testkit::unique(service, '-');
        let (file, log) = (self.folder.join(format!("{name}.toml")), self.folder.join(format!("{name}.log")));
        fs::write(&file, settings).unwrap();
        let child = GuardedCommand::new(binary(service), &log).arg("--config").arg(file).spawn();
        self.children.push(child.unwrap());
        (format!("http://{admin}"), log)
    }

    fn client(&self, api: &str, role: &str) -> Client {
        let id = Uuid::new_v4();
        let token = run(Command::new(deploy("token.sh"))
            .args([&id.to_string(), role])
            .env("SECRETS", self.secrets()));
        Client::new(vec![api.to_owned()], id, token.trim().to_owned())
    }
}

#[tokio::test]
async fn servers_that_ask_who_is_there_are_used_over_tls_with_no_more_rights_than_needed() {
    let mut world = World::start().await;
    let listen = format!("127.0.0.1:{}", local_stack::free_port().unwrap());
    let api_settings = format!(
        "listen = \"{listen}\"\nkeys_file = {:?}\nredis_urls = [\"rediss://localhost:{}/\"]\nredis_ca_file = {:?}\n",
        world.secrets().join("keys.json"),
        world.redis_port,
        world.certificates.authority,
    );
    let mut started = Vec::new();
    for (service, database) in SERVICES {
        let (security, more) =
            (world.security(service), if service == "api" { api_settings.as_str() } else { "" });
        started.push(world.service(service, database, &security, more));
    }
    let http = reqwest::Client::new();
    for (admin, log) in &started {
        testkit::eventually(Duration::from_secs(60), "the service is ready", async || {
            match http.get(format!("{admin}/readyz")).send().await {
                Ok(answer) if answer.status() == 200 => Ok(()),
                Ok(answer) => Err(answer.text().await.unwrap_or_default()),
                Err(error) => Err(format!("{error}\n{}", fs::read_to_string(log).unwrap_or_default())),
            }
        })
        .await;
    }

    // One order is paid, one declined and compensated.
    let api = format!("http://{listen}");
    let (admin, customer) = (world.client(&api, "admin"), world.client(&api, "customer"));
    let sku = admin.new_product(10, &json!({})).await;
    let paid = customer.ordered(&sku, 1, Some("tok_approve")).await;
    customer.until(&paid, &["PAID"]).await;
    let declined = customer.ordered(&sku, 1, Some("tok_decline")).await;
    customer.until(&declined, &["PAYMENT_FAILED"]).await;
    testkit::eventually(SOON, "nine are left", async || {
        let product = customer.get(&format!("/v1/products/{sku}")).await.expect(200);
        if product["available"] == 9 { Ok(()) } else { Err(product.to_string()) }
    })
    .await;

    connections_are_encrypted(&world).await;
    databases_are_closed_to_others(&world).await;
    topics_are_closed_to_others(&world).await;

    // An operator's tool is let in the same way.
    let file = world.folder.join("operator-kafka.toml");
    fs::write(&file, toml::to_string(&world.security("operator")).unwrap()).unwrap();
    let sagactl = |arguments: &[&str]| {
        let mut sagactl = Command::new(binary("sagactl"));
        sagactl.args(arguments).args(["--kafka", &world.secured, "--kafka-security"]).arg(&file);
        for (_, database) in SERVICES {
            sagactl.arg("--database").arg(format!("{database}={}", world.database(database)));
        }
        run(&mut sagactl)
    };
    assert!(sagactl(&["show", &paid]).contains("PAID"));
    let redis = format!("rediss://localhost:{}/", world.redis_port);
    let authority = world.certificates.authority.to_str().unwrap();
    let audited = sagactl(&["audit", "--redis", &redis, "--redis-ca", authority]);
    assert!(audited.contains("redis: 1 skus compared") && audited.ends_with("clean\n"), "{audited}");
    let audited = sagactl(&["audit", "--redis", &redis]);
    assert!(audited.contains("redis: not compared: redis can't be read"), "{audited}");

    // Who is refused hears it in one line.
    let security = Security { password: Some("wrong".to_owned()), ..world.security("stock-worker") };
    let (_, log) = world.service("stock-worker", "stock", &security, "");
    testkit::eventually(SOON, "the log says who refuses", async || {
        let said = fs::read_to_string(&log).unwrap_or_default();
        if said.contains("kafka refuses us: see kafka_security") { Ok(()) } else { Err(said) }
    })
    .await;
}

/// Every connection of a service to PostgreSQL, and the door's to Redis.
async fn connections_are_encrypted(world: &World) {
    let mut admin = PgConnection::connect(&world.stack.postgres_url("postgres")).await.unwrap();
    let seen: Vec<(String, bool)> = sqlx::query_as(
        "SELECT usename::text, bool_and(ssl) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) \
         WHERE usename = ANY($1) GROUP BY usename ORDER BY usename",
    )
    .bind(SERVICES.map(|(_, database)| database))
    .fetch_all(&mut admin)
    .await
    .unwrap();
    let all = ["api", "orchestrator", "payment", "stock"].map(|role| (role.to_owned(), true));
    assert_eq!(seen, all);
    let keys = run(Command::new("redis-cli")
        .args(["--tls", "-h", "localhost", "-p", &world.redis_port.to_string(), "--cacert"])
        .arg(&world.certificates.authority)
        .arg("DBSIZE"));
    assert!(keys.trim().parse::<u32>().unwrap() > 0, "the door kept nothing: {keys}");
}

/// A service's role gets into its own database only.
async fn databases_are_closed_to_others(world: &World) {
    for (_, own) in SERVICES {
        PgConnection::connect(&world.database(own)).await.unwrap().close().await.unwrap();
        for (_, other) in SERVICES.into_iter().filter(|(_, other)| *other != own) {
            let url = world.database(own).replace(&format!("/{own}?"), &format!("/{other}?"));
            let refused = PgConnection::connect(&url).await.unwrap_err();
            let code =
                refused.as_database_error().and_then(|error| error.code().map(|code| code.to_string()));
            assert_eq!(code.as_deref(), Some("42501"), "{own} in {other}: {refused}");
        }
    }
    let mut stock = PgConnection::connect(&world.database("stock")).await.unwrap();
    let may_make = sqlx::query(AssertSqlSafe("CREATE ROLE other".to_owned())).execute(&mut stock).await;
    assert!(may_make.is_err());
}

/// A service's user knows and writes the topics that `docs/topics.md` says, and no others.
async fn topics_are_closed_to_others(world: &World) {
    for (service, _) in SERVICES {
        let cluster = world.cluster(service);
        let publisher = Publisher::giving_up_after(&cluster, "test", Duration::from_secs(5)).unwrap();
        for topic in schemas::Topic::ALL {
            if topic.written_by().contains(&service) {
                continue;
            }
            let published = publisher.publish(&[Output::raw(topic.name(), "x", Vec::new())]).await;
            assert!(published.is_err(), "{service} wrote to {topic:?}");
            if !topic.read_by().contains(&service) {
                let cluster = cluster.clone();
                let partitions = move || LogReader::new(&cluster).unwrap().partitions(topic.name());
                let known = tokio::task::spawn_blocking(partitions).await.unwrap();
                assert!(known.is_err(), "{service} knows {topic:?}");
            }
        }
    }
}
