// Gets a certificate with @root/acme, which is what greenlock runs on.
// node root.js DIRECTORY OUT NAME
const ACME = require('@root/acme');
const CSR = require('@root/csr');
const Keypairs = require('@root/keypairs');
const PEM = require('@root/pem');
const fs = require('node:fs');
const http = require('node:http');

const [directoryUrl, out, name] = process.argv.slice(2);
const tokens = new Map();

async function main() {
  const server = http.createServer((req, res) => res.end(tokens.get(req.url.split('/').pop()) ?? ''));
  await new Promise((done) => server.listen(80, '127.0.0.1', done));
  const acme = ACME.create({ maintainerEmail: 'a@example.org', packageAgent: 'e2e/1', notify: () => {} });
  await acme.init(directoryUrl);
  const accountKey = (await Keypairs.generate({ kty: 'EC', format: 'jwk' })).private;
  const account = await acme.accounts.create({ subscriberEmail: 'a@example.org', agreeToTerms: true, accountKey });
  const serverKey = (await Keypairs.generate({ kty: 'RSA', format: 'jwk' })).private;
  const csr = PEM.packBlock({
    type: 'CERTIFICATE REQUEST',
    bytes: await CSR.csr({ jwk: serverKey, domains: [name], encoding: 'der' }),
  });
  const pems = await acme.certificates.create({
    account, accountKey, csr, domains: [name], skipDryRun: true,
    challenges: {
      'http-01': {
        init: async () => null,
        set: async ({ challenge }) => { tokens.set(challenge.token, challenge.keyAuthorization); return null; },
        get: async ({ challenge }) => ({ keyAuthorization: tokens.get(challenge.token) }),
        remove: async () => null,
      },
    },
  });
  fs.writeFileSync(out, `${pems.cert}\n${pems.chain}\n`);
}

main().then(() => process.exit(0), (err) => { console.error(err); process.exit(1); });
