// Gets, replaces and revokes certificates with acme-client from npm.
// node npm.js DIRECTORY CHALLENGE OUT NAME... with OUT.pem, OUT.key and
// OUT.revoked.pem, OUT.revoked.key for answers.
const acme = require('acme-client');
const fs = require('node:fs');
const http = require('node:http');
const tls = require('node:tls');
const { execFileSync } = require('node:child_process');

const [directoryUrl, type, out, ...names] = process.argv.slice(2);
const { EAB_KID: kid, EAB_HMAC: hmacKey, TXT_HOOK: hook, KEY: keyKind } = process.env;

const tokens = new Map();
const contexts = new Map();
const servers = [];

async function listen(server, port) {
  servers.push(server);
  await new Promise((done) => server.listen(port, '127.0.0.1', done));
}

async function create(authz, challenge, keyAuthorization) {
  const name = authz.identifier.value;
  if (type === 'http-01') {
    tokens.set(challenge.token, keyAuthorization);
  } else if (type === 'dns-01') {
    execFileSync(hook, ['add', `_acme-challenge.${name}`, keyAuthorization]);
  } else {
    const [key, cert] = await acme.crypto.createAlpnCertificate(authz, keyAuthorization);
    contexts.set(name, tls.createSecureContext({ key, cert }));
  }
}

async function remove(authz, challenge, keyAuthorization) {
  if (type === 'dns-01') {
    execFileSync(hook, ['del', `_acme-challenge.${authz.identifier.value}`, keyAuthorization]);
  }
}

async function main() {
  if (type === 'http-01') {
    await listen(http.createServer((req, res) => res.end(tokens.get(req.url.split('/').pop()) ?? '')), 80);
  } else if (type === 'tls-alpn-01') {
    await listen(tls.createServer({
      ALPNProtocols: ['acme-tls/1'],
      SNICallback: (name, done) => done(null, contexts.get(name)),
    }), 443);
  }
  const options = {
    directoryUrl,
    accountKey: await acme.crypto.createPrivateEcdsaKey(),
    backoffAttempts: 20,
    backoffMin: 100,
    backoffMax: 500,
  };
  if (kid) options.externalAccountBinding = { kid, hmacKey };
  const client = new acme.Client(options);

  const issue = async (name) => {
    const key = keyKind === 'rsa' ? await acme.crypto.createPrivateRsaKey(2048) : await acme.crypto.createPrivateEcdsaKey();
    const [, csr] = await acme.crypto.createCsr({ altNames: names }, key);
    const pem = await client.auto({
      csr,
      email: 'a@example.org',
      termsOfServiceAgreed: true,
      challengePriority: [type],
      challengeCreateFn: create,
      challengeRemoveFn: remove,
      // It asks BIND and port 80 as the CA will; for tls-alpn-01 too.
      skipChallengeVerification: type === 'dns-01',
    });
    fs.writeFileSync(`${out}${name}.pem`, pem);
    fs.writeFileSync(`${out}${name}.key`, key);
    return pem;
  };
  const first = await issue('.revoked');
  // An account that is there is updated, with {} as there is nothing to say.
  if (process.env.UPDATE) await client.createAccount({ termsOfServiceAgreed: true });
  await client.updateAccount({ contact: ['mailto:b@example.org'] });
  await client.updateAccountKey(await acme.crypto.createPrivateEcdsaKey());
  await issue('');
  await client.revokeCertificate(first, { reason: 4 });
  await client.updateAccount({ status: 'deactivated' });
}

main().then(() => process.exit(0), (err) => { console.error(err); process.exit(1); });
