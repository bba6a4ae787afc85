/**
 * @peculiar/x509 finds its algorithms through a container that wants the three functions of the decorator-metadata proposal on
 * `Reflect` and refuses to load without them. Its classes have constructors without parameters, so nothing more than
 * this small store is ever asked for; where a full polyfill is loaded, that one stays. To be imported before the library.
 */
type Key = string | symbol;
const store = new WeakMap<object, Map<Key, unknown>>();

const read = (key: Key, target: object): unknown => store.get(target)?.get(key);

const functions = {
  getMetadata: read,
  getOwnMetadata: read,
  defineMetadata: (key: Key, value: unknown, target: object): void => {
    store.set(target, (store.get(target) ?? new Map<Key, unknown>()).set(key, value));
  },
};

if (!('getMetadata' in Reflect)) Object.assign(Reflect, functions);
