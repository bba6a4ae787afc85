import { LimitFault, limitOf, MAX_RECORDED, parseLimits } from './limits';
import { formatAmount, parseAmount } from './money';

it.each([
  ['50000', 'KES', '50000'],
  ['50000,KES=5000000,VND=2000000000', 'KES', '5000000'],
  ['50000,KES=5000000,VND=2000000000', 'VND', '2000000000'],
  ['50000,KES=5000000,VND=2000000000', 'INR', '50000'],
  ['0.0001,KWD=0.005', 'KWD', '0.005'],
  ['999999999999999.9999', 'KES', '999999999999999.9999'],
])('%s allows %s up to %s', (text, currency, limit) => {
  expect(limitOf(parseLimits(text), currency)).toBe(parseAmount(limit));
});

it.each([
  ['', /^must be a decimal above 0/],
  ['0', /^must be a decimal above 0/],
  ['0.0000', /^must be a decimal above 0/],
  ['-1', /^must be a decimal above 0/],
  ['1e5', /^must be a decimal above 0/],
  ['007', /^must be a decimal above 0/],
  [' 50000', /^must be a decimal above 0/],
  ['1000000000000000', /^must be a decimal above 0/],
  ['KES=5', /^must be a decimal above 0/],
  ['50000,', /^"" must be a currency/],
  ['50000,KES', /^"KES" must be a currency/],
  ['50000,kes=5', /^"kes=5" must be a currency/],
  ['50000,QQQ=5', /^"QQQ=5" must be a currency/],
  ['50000,XAU=5', /^"XAU=5" must be a currency/],
  ['50000,KES=5=6', /^"KES=5=6" must be a currency/],
  ['50000,KES=5,KES=6', /^KES must occur once/],
  ['50000,KES=0', /^that of KES must be a decimal above 0/],
  ['50000,VND=0.5', /^that of VND must have at most 0 digits after the point in VND/],
])('"%s" is refused', (text, message) => {
  expect(() => parseLimits(text)).toThrow(LimitFault);
  expect(() => parseLimits(text)).toThrow(message);
});

it('what can be recorded fills the column', () => {
  expect(formatAmount(MAX_RECORDED)).toBe('999999999999999.9999');
});
