# Gets and revokes certificates with ruby-acme-client.
# ruby ruby.rb DIRECTORY ROOT OUT HOOK|WWW CHALLENGE NAME...
require 'acme-client'

directory, root, out, place, type, *names = ARGV
# RSA account keys: 2.0.9 drops leading zeros from the coordinates of EC keys,
# which makes one key of 128 unusable with any server.
client = Acme::Client.new(private_key: OpenSSL::PKey::RSA.new(2048), directory: directory,
                          connection_options: { ssl: { ca_file: root } })
client.new_account(contact: 'mailto:a@example.org', terms_of_service_agreed: true)

issue = lambda do
  order = client.new_order(identifiers: names)
  order.authorizations.each do |authorization|
    if type == 'http-01'
      challenge = authorization.http
      File.write("#{place}/#{challenge.filename}", challenge.file_content)
    else
      challenge = authorization.dns
      system(place, 'add', "#{challenge.record_name}.#{authorization.domain}", challenge.record_content) or raise 'no TXT record'
    end
    challenge.request_validation
    while %w[pending processing].include?(challenge.status)
      sleep 0.1
      challenge.reload
    end
    raise "challenge is #{challenge.status}: #{challenge.error}" unless challenge.status == 'valid'
  end
  key = OpenSSL::PKey::RSA.new(2048)
  order.finalize(csr: Acme::Client::CertificateRequest.new(private_key: key, names: names, subject: { common_name: names.first }))
  while order.status == 'processing'
    sleep 0.1
    order.reload
  end
  [order.certificate, key]
end

pem, key = issue.call
File.write("#{out}.revoked.pem", pem)
File.write("#{out}.revoked.key", key.to_pem)
client.account_update(contact: 'mailto:b@example.org')
client.account_key_change(new_private_key: OpenSSL::PKey::RSA.new(2048))
File.write("#{out}.pem", issue.call.first)
client.revoke(certificate: pem, reason: 4)
client.account_deactivate
