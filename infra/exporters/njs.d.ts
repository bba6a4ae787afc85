/** What gateway.js uses of njs. */
declare const ngx: {
  readonly shared: {
    readonly figures: {
      incr(key: string, by: number, from: number): number;
      items(atMost: number): [key: string, value: number][];
    };
  };
};
