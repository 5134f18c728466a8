// A real OpenID Provider: the package `oidc-provider`, whose people sign in by saying who they are.
//
// Reads {port, jwks, algorithm} as JSON from standard input, and prints its issuer when it listens.
// `login_hint` of an authorization request is who signs in; `acr_values` says how: `amr:mfa` leaves
// `amr` in the ID token, anything else comes back as `acr`. With `resource` the access token is a JWT.
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

// The package is installed outside the repository, in the folder where this was started.
const installed = createRequire(join(process.cwd(), 'package.json')).resolve('oidc-provider');
const { Provider } = await import(pathToFileURL(installed));

const { port, jwks, algorithm } = JSON.parse(readFileSync(0, 'utf8'));
const server = createServer();
server.listen(port, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

const app = (client_id) => ({
  client_id,
  redirect_uris: ['https://portal.example.vn/signed-in'],
  response_types: ['code'],
  grant_types: ['authorization_code'],
  token_endpoint_auth_method: 'none',
  id_token_signed_response_alg: algorithm,
});

const provider = new Provider(issuer, {
  jwks,
  clients: [app('noidai'), app('other')],
  scopes: ['openid'],
  acrValues: ['urn:vn:level:3'],
  claims: { openid: ['sub', 'acr', 'amr'] },
  cookies: { keys: ['a key of the tests'] },
  findAccount: (_ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  async loadExistingGrant(ctx) {
    const { client, session } = ctx.oidc;
    const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope('openid');
    grant.addResourceScope('https://noidai.example.vn', 'use');
    await grant.save();
    return grant;
  },
  features: {
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: () => ({
        scope: 'use',
        audience: 'noidai',
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: algorithm } },
      }),
    },
  },
  ttl: { IdToken: 3600 },
});
provider.on('server_error', (_ctx, error) => console.error(error));

const answer = provider.callback();
server.on('request', async (request, response) => {
  if (!request.url.startsWith('/interaction/')) return answer(request, response);
  const { params } = await provider.interactionDetails(request, response);
  const login = { accountId: params.login_hint };
  if (params.acr_values === 'amr:mfa') login.amr = ['pwd', 'mfa'];
  else if (params.acr_values) login.acr = params.acr_values;
  return provider.interactionFinished(request, response, { login });
});
console.log(issuer);
