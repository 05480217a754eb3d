// ProviderLoader
